"""Mean IoU as CSAIL counts it: by hand, and what torchmetrics counts otherwise."""

import numpy as np
import pytest
import torch

from timm_attn.downstream.metrics.miou import IGNORED, Confusion


def confusion(predictions: list[int], labels: list[int], classes: int) -> Confusion:
    counted = Confusion(classes)
    counted.add(torch.tensor(predictions), torch.tensor(labels))
    return counted


def test_by_hand_with_an_absent_class_and_an_unlabelled_pixel() -> None:
    counted = confusion([0, 0, 1, 1, 0], [0, 1, 1, 1, IGNORED], classes=3)
    assert counted.counts.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]  # rows are labels
    assert counted.ious().tolist() == pytest.approx([1 / 2, 2 / 3, 0])
    assert counted.metrics() == {'mIoU': pytest.approx((1 / 2 + 2 / 3) / 3), 'accuracy': pytest.approx(3 / 4)}


def test_pictures_add_up() -> None:
    parts = Confusion(4)
    maps = torch.randint(0, 4, (3, 2, 7, 9), generator=torch.Generator().manual_seed(0))
    for predictions, labels in maps:
        parts.add(predictions, labels)
    whole = Confusion(4)
    whole.add(maps[:, 0], maps[:, 1])
    assert torch.equal(parts.counts, whole.counts) and int(whole.counts.sum()) == 3 * 63


def csail(predictions: np.ndarray, labels: np.ndarray, classes: int) -> tuple[float, float]:
    """The definition, class by class."""
    predictions, labels = predictions[labels >= 0], labels[labels >= 0]
    pairs = [(predictions == c, labels == c) for c in range(classes)]
    ious = [(p & q).sum() / ((p | q).sum() + 1e-10) for p, q in pairs]
    return float(np.mean(ious)), float((predictions == labels).mean())


def test_torchmetrics_leaves_absent_classes_out() -> None:
    classification = pytest.importorskip('torchmetrics.classification')
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(-1, 9, (40, 50), generator=generator)  # of 12 classes three are absent
    wrong = torch.rand(labels.shape, generator=generator) < 0.3
    predictions = torch.where(wrong, torch.randint(0, 9, labels.shape, generator=generator), labels.clamp(min=0))
    counted = Confusion(12)
    counted.add(predictions, labels)
    theirs = classification.MulticlassJaccardIndex(12, ignore_index=IGNORED)(predictions, labels)
    ours = counted.metrics()
    assert ours['mIoU'] == pytest.approx(float(theirs) * 9 / 12, abs=1e-6)
    assert (ours['mIoU'], ours['accuracy']) == pytest.approx(csail(predictions.numpy(), labels.numpy(), 12))
    accuracy = classification.MulticlassAccuracy(12, average='micro', ignore_index=IGNORED)(predictions, labels)
    assert ours['accuracy'] == pytest.approx(float(accuracy), abs=1e-6)


@pytest.mark.parametrize(
    ('predictions', 'labels', 'message'),
    [
        ([0, 1], [0], r'shape \[2\] do not fit labels of \[1\]'),
        ([0], [3], 'Labels must be from -1 to 2, but one is 3'),
        ([-1], [0], 'Predictions must be from 0 to 2, but one is -1'),
    ],
)
def test_what_is_no_class_is_refused(predictions: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion(predictions, labels, classes=3)
