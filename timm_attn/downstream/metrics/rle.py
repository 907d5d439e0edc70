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
    """The mask (H, W) of 0 and 1 of an encoding."""
    require_coco()
    from faster_coco_eval.core import mask as coco

    return coco.decode(rle)


def from_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """The encoding of a COCO annotation's segmentation: polygons, or counts.

    Raises:
        ValueError: it is neither.
    """
    require_coco()
    from faster_coco_eval.core import mask as coco

    is_rle = isinstance(segmentation, dict) and {*segmentation} >= {'counts', 'size'}
    if not is_rle and not (isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation)):
        raise ValueError(f'A segmentation must be polygons or run lengths, but is {reprlib.repr(segmentation)}.')
    try:
        return coco.segmToRle(segmentation, width, height)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f'The segmentation {reprlib.repr(segmentation)} cannot be drawn: {error}.') from error
