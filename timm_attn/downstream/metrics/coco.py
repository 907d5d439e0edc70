"""COCO's average precision, by faster-coco-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from timm_attn.downstream.metrics.rle import Rle, encoded, require_coco

AREAS = ('', '_small', '_medium', '_large')  # in the order of COCO's area ranges
THRESHOLDS = tuple(range(50, 100, 5))  # IoU in %
_SHAPES = {'bbox': 'bbox', 'segm': 'segmentation'}  # by the kind of IoU, the key of a detection that it compares
_UNSURE = 0.5  # probability from which a pixel belongs to a detected mask


@dataclass(frozen=True)
class Picture:
    """What is on a picture and what was found on it, as COCO's annotations and results but for their ids."""

    number: int
    size: tuple[int, int]  # (H, W)
    truths: Sequence[Mapping[str, Any]]
    found: Sequence[Mapping[str, Any]]


def picture_of(number: int, image: Tensor, target: Mapping[str, Tensor], output: Mapping[str, Tensor]) -> Picture:
    """A picture [C, H, W] with its target and a detector's output for it; masks are kept encoded."""
    truths = _rows(target)
    for row, crowd, area in zip(truths, target['iscrowd'].tolist(), target['area'].tolist(), strict=True):
        row.update(iscrowd=int(crowd), area=area)
    found = _rows(output)
    for row, score in zip(found, output['scores'].tolist(), strict=True):
        row.update(score=score)
    height, width = image.shape[-2:]
    return Picture(number, (height, width), truths, found)


def _rows(things: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    boxes, labels = things['boxes'].detach().cpu().double(), things['labels'].tolist()
    corners = np.concatenate([boxes[:, :2].numpy(), (boxes[:, 2:] - boxes[:, :2]).numpy()], axis=1)
    rows: list[dict[str, Any]] = [
        dict(bbox=box, category_id=label) for box, label in zip(corners.tolist(), labels, strict=True)
    ]
    if 'masks' in things:
        masks = things['masks'].detach().cpu().numpy().reshape(len(rows), *things['masks'].shape[-2:])
        for row, mask in zip(rows, masks, strict=True):
            row['segmentation'] = _text(encoded(mask > _UNSURE))
    return rows


def _text(rle: Rle) -> Rle:
    return {**rle, 'counts': rle['counts'].decode() if isinstance(rle['counts'], bytes) else rle['counts']}


def coco_ap(pictures: Sequence[Picture], classes: int, kind: str = 'bbox') -> dict[str, float]:
    """Average precision in %, the mean over classes, by COCO's protocol with at most 100 detections a picture.

    Args:
        classes: their number; labels are from 1 on.
        kind: 'bbox' or 'segm', whose IoU counts.

    Returns:
        AP (the mean over IoU .50 ... .95), AP50 ... AP95, and AP_small, AP_medium, AP_large by COCO's areas in pixels;
        -1 where no object is of that size, as COCO has it.

    Raises:
        RuntimeError: faster-coco-eval is not installed.
    """
    require_coco()
    from faster_coco_eval import COCO, COCOeval_faster

    images = [dict(id=p.number, height=p.size[0], width=p.size[1]) for p in pictures]
    truths = [dict(row, image_id=p.number) for p in pictures for row in p.truths]
    found = [dict(row, image_id=p.number) for p in pictures for row in p.found]
    others = {*_SHAPES.values()} - {_SHAPES[kind]}  # a row with boxes would be taken for one of boxes alone
    found = [{key: value for key, value in row.items() if key not in others} for row in found]
    truth = COCO(
        dict(
            images=images,
            annotations=[dict(row, id=number) for number, row in enumerate(truths, 1)],
            categories=[dict(id=label, name=str(label)) for label in range(1, classes + 1)],
        )
    )
    evaluation: Any = COCOeval_faster(truth, truth.loadRes(found), kind, print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    return _means(np.asarray(evaluation.eval['precision']))


def _means(precision: npt.NDArray[np.float64]) -> dict[str, float]:
    """The means of a table of precisions [threshold, recall, class, area, most detections]."""

    def mean(part: npt.NDArray[np.float64]) -> float:
        known = part[part > -1]
        return 100 * float(known.mean()) if known.size else -1.0

    whole = precision[..., -1]
    at = {f'AP{threshold}': mean(whole[place, :, :, 0]) for place, threshold in enumerate(THRESHOLDS)}
    areas = {f'AP{area}': mean(whole[:, :, :, place]) for place, area in enumerate(AREAS)}
    return {'AP': areas.pop('AP'), **at, **areas}
