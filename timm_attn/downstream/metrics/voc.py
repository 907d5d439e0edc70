"""The average precision of PASCAL VOC 2007 (BAM Table 7): 11 points of recall, the development kit's matching."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IOU = 0.5
RECALLS = [round(0.1 * k, 1) for k in range(11)]  # np.linspace has 0.30000000000000004, which a recall of 0.3 misses


class Found(NamedTuple):
    """What a detector found in one picture: boxes (n, 4), labels (n,), scores (n,)."""

    boxes: Array
    labels: npt.NDArray[np.int64]
    scores: Array


class Truth(NamedTuple):
    """What is in one picture: boxes (n, 4), labels (n,), and the objects (n,) that count neither as hit nor as miss."""

    boxes: Array
    labels: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]


def average_precisions(found: Sequence[Found], truth: Sequence[Truth], iou: float = IOU) -> dict[int, float]:
    """AP per label of the objects that are not difficult: the mean of the best precision from each of RECALLS on.

    Boxes are x1, y1, x2, y2 of the first and the last pixel, both of which belong to the box: a width is x2 - x1 + 1.
    A detection belongs to the object of its label with the largest overlap. A second one of the same object is wrong.

    Raises:
        ValueError: not one of each for every picture, or scores that are not finite.
    """
    if len(found) != len(truth):
        raise ValueError(f'There are detections of {len(found)} pictures, but objects of {len(truth)}.')
    if not all(np.isfinite(one.scores).all() and np.isfinite(one.boxes).all() for one in found):
        raise ValueError('A detection has a score or a box that is not finite.')
    counts: dict[int, int] = {}
    for one in truth:
        for label in one.labels[~one.difficult].tolist():
            counts[label] = counts.get(label, 0) + 1
    return {label: _average_precision(found, truth, label, counts[label], iou) for label in sorted(counts)}


def mean_average_precision(found: Sequence[Found], truth: Sequence[Truth], names: Sequence[str]) -> dict[str, float]:
    """'mAP', the mean over the classes that the pictures have, and the AP of each of them; names[0] has label 1."""
    each = average_precisions(found, truth)
    mean = sum(each.values()) / len(each) if each else 0.0
    return {'mAP': mean, **{names[label - 1]: value for label, value in each.items()}}


def _average_precision(found: Sequence[Found], truth: Sequence[Truth], label: int, objects: int, iou: float) -> float:
    hits: list[tuple[float, bool]] = []
    for one, other in zip(found, truth, strict=True):
        mine, theirs = one.labels == label, other.labels == label
        hits += _hits(one.boxes[mine], one.scores[mine], other.boxes[theirs], other.difficult[theirs], iou)
    hits.sort(key=lambda hit: -hit[0])  # stable, as equal scores stay in the order of the pictures
    right = np.cumsum([hit for _, hit in hits], dtype=np.float64)
    precision, recall = right / np.arange(1, len(hits) + 1), right / objects
    return float(np.mean([precision[recall >= least].max(initial=0.0) for least in RECALLS]))


def _hits(
    boxes: Array, scores: Array, objects: Array, difficult: npt.NDArray[np.bool_], iou: float
) -> list[tuple[float, bool]]:
    """(score, hit) of the detections of one picture and label, without those of difficult objects."""
    taken: set[int] = set()
    hits = []
    for index in np.argsort(-scores, kind='stable').tolist():
        overlaps = _overlaps(boxes[index], objects)
        best = int(overlaps.argmax()) if len(overlaps) else -1
        near = best >= 0 and bool(overlaps[best] >= iou)
        if near and difficult[best]:
            continue
        hits.append((float(scores[index]), near and best not in taken))
        if near:
            taken.add(best)
    return hits


def _overlaps(box: Array, objects: Array) -> Array:
    """The intersection over union of a box with each object, (n,)."""
    sides = np.minimum(box[2:], objects[:, 2:]) - np.maximum(box[:2], objects[:, :2]) + 1
    shared = sides.clip(0).prod(axis=1)
    areas = (objects[:, 2:] - objects[:, :2] + 1).prod(axis=1)
    overlaps: Array = shared / (areas + (box[2:] - box[:2] + 1).prod() - shared)
    return overlaps
