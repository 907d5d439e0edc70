"""Masks as COCO's run-length encoding, by faster-coco-eval."""

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Rle = Mapping[str, Any]  # size (H, W) and counts


def require_coco() -> None:
    """Raises a RuntimeError where faster-coco-eval is not installed."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError as error:
        raise RuntimeError("COCO needs faster-coco-eval: pip install 'timm-attn[downstream]'.") from error


def encoded(mask: npt.NDArray[np.bool_]) -> Rle:
    """The encoding of a mask (H, W)."""
    require_coco()
    from faster_coco_eval.core import mask as coco

    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))


def decoded(rle: Rle) -> npt.NDArray[np.uint8]:
    """The mask (H, W) of 0 and 1 of an encoding.

    Raises:
        ValueError: the counts are of fewer pixels.
    """
    require_coco()
    from faster_coco_eval.core import mask as coco

    return coco.decode(rle)


def from_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """The encoding of a COCO annotation's segmentation: polygons, or counts.

    Raises:
        ValueError: it is neither, or not of a mask (height, width).
    """
    require_coco()
    from faster_coco_eval.core import mask as coco

    said = f'The segmentation {reprlib.repr(segmentation)}'
    if isinstance(segmentation, dict) and isinstance(segmentation.get('counts'), str | bytes | list):
        if segmentation.get('size') != [height, width]:
            raise ValueError(f'{said} must have the size [{height}, {width}], (H, W) of its picture.')
    elif not (isinstance(segmentation, list) and segmentation and all(isinstance(one, list) for one in segmentation)):
        raise ValueError(f'A segmentation must be polygons or run lengths, but is {reprlib.repr(segmentation)}.')
    elif not all(_is_polygon(one, max(height, width)) for one in segmentation):
        raise ValueError(f'{said} has a polygon that is not x1, y1, x2, y2 ... in and near {width} x {height} pixels.')
    try:
        return coco.segmToRle(segmentation, width, height)
    except (RuntimeError, TypeError, ValueError) as error:
        why = str(error).partition(' (#')[0].rstrip('.')  # a remark for builders of the extension
        raise ValueError(f'{said} cannot be drawn: {why}.') from error


def _is_polygon(values: list[Any], side: int) -> bool:
    """Pairs of numbers at most a side away from the picture: the memory of drawing grows with the edges' lengths."""
    return len(values) % 2 == 0 and all(isinstance(v, int | float) and -side <= v <= 2 * side for v in values)
