"""VOC07's average precision: by hand, against torchmetrics where that agrees, and where it does not."""

import numpy as np
import pytest
import torch

from timm_attn.downstream.metrics.voc import RECALLS, Found, Truth, average_precisions, mean_average_precision

FAR = 1000  # pixels between objects


def boxes(*places: float) -> np.ndarray:
    """A box of 10 x 10 pixels at each place, both ends included."""
    return np.array([[p, p, p + 9, p + 9] for p in places], dtype=np.float64).reshape(-1, 4)


def found(*hits: tuple[float, float], label: int = 1) -> Found:
    """Detections (place, score)."""
    return Found(
        boxes(*(p for p, _ in hits)), np.full(len(hits), label, np.int64), np.array([s for _, s in hits], np.float64)
    )


def truth(*places: float, difficult: tuple[int, ...] = (), label: int = 1) -> Truth:
    marked = np.isin(np.arange(len(places)), difficult)
    return Truth(boxes(*places), np.full(len(places), label, np.int64), marked)


@pytest.mark.parametrize(
    ('detections', 'objects', 'expected'),
    [
        (found((0, 0.9)), truth(0), 1.0),
        (found((0, 0.9)), truth(0, FAR), 6 / 11),  # a recall of .5 reaches 0, .1, ... .5
        (found((0, 0.9)), truth(0, FAR, difficult=(1,)), 1.0),
        (found((FAR, 0.95), (0, 0.9)), truth(0, FAR, difficult=(1,)), 1.0),  # what is difficult is no mistake
        (found((FAR, 0.9)), truth(0, FAR, difficult=(1,)), 0.0),  # and no hit
        (found((0, 0.9), (0, 0.8)), truth(0), 1.0),  # the second of an object comes after full recall
        (found((0, 0.9), (0, 0.8), (FAR, 0.7)), truth(0, FAR), (6 + 5 * 2 / 3) / 11),
        (found((FAR, 0.9), (0, 0.8)), truth(0), 0.5),
        (found(), truth(0), 0.0),
        (found((0, 0.9), label=2), truth(0), 0.0),
    ],
)
def test_by_hand(detections: Found, objects: Truth, expected: float) -> None:
    assert average_precisions([detections], [objects]) == {1: pytest.approx(expected, abs=1e-12)}


def test_a_recall_of_three_tenths_counts_for_the_point_of_three_tenths() -> None:
    objects = truth(*(FAR * k for k in range(10)))
    detections = found(*((FAR * k, 0.9) for k in range(3)))
    assert average_precisions([detections], [objects])[1] == pytest.approx(4 / 11)
    assert np.linspace(0, 1, 11)[3] > 0.3 == RECALLS[3]


def test_a_box_has_both_its_ends() -> None:
    """1 x 2 pixels of 1 x 4: an overlap of .5; without the last pixel it would be 1 / 3."""
    objects = Truth(np.array([[0.0, 0, 3, 0]]), np.array([1]), np.array([False]))
    half = Found(np.array([[0.0, 0, 1, 0]]), np.array([1]), np.array([0.9]))
    assert average_precisions([half], [objects]) == {1: 1.0}


def test_a_class_of_difficult_objects_alone_has_no_ap() -> None:
    assert average_precisions([found()], [truth(0, difficult=(0,))]) == {}


def test_the_mean_is_over_the_classes_that_are_there() -> None:
    pictures = [found((0, 0.9)), found((0, 0.9), label=3)], [truth(0), truth(0, FAR, label=3)]
    metrics = mean_average_precision(*pictures, names=['cat', 'cow', 'dog'])
    assert metrics == {'mAP': pytest.approx((1 + 6 / 11) / 2), 'cat': 1.0, 'dog': pytest.approx(6 / 11)}


def random_pictures(seed: int) -> tuple[list[Found], list[Truth]]:
    random = np.random.RandomState(seed)
    detections, objects = [], []
    for _ in range(30):
        corners = random.permutation(8)[:3].repeat(2).reshape(-1, 2) * 60.0
        real = np.concatenate([corners, corners + random.randint(20, 50, (3, 2))], axis=1)
        labels = random.randint(1, 4, 3)
        moved = real + random.randint(-8, 9, real.shape)
        extra = moved[:1] + 400
        detections.append(
            Found(np.concatenate([moved, extra]), np.append(labels, random.randint(1, 4)), random.rand(4))
        )
        objects.append(Truth(real, labels, np.zeros(3, bool)))
    return detections, objects


@pytest.mark.parametrize('seed', [0, 1])
def test_torchmetrics_agrees_where_nothing_is_difficult(seed: int) -> None:
    detection = pytest.importorskip('torchmetrics.detection')
    pytest.importorskip('faster_coco_eval')
    detections, objects = random_pictures(seed)
    metric = detection.MeanAveragePrecision(
        iou_thresholds=[0.5], rec_thresholds=RECALLS, class_metrics=True, backend='faster_coco_eval'
    )
    outer = np.array([0, 0, 1, 1])  # its boxes end behind their last pixel
    metric.update(
        [
            dict(boxes=torch.tensor(d.boxes + outer), labels=torch.tensor(d.labels), scores=torch.tensor(d.scores))
            for d in detections
        ],
        [dict(boxes=torch.tensor(o.boxes + outer), labels=torch.tensor(o.labels)) for o in objects],
    )
    expected = metric.compute()['map_per_class'].tolist()
    ours = average_precisions(detections, objects)
    assert list(ours) == [1, 2, 3] and 0.2 < min(ours.values()) < max(ours.values()) < 0.95
    assert list(ours.values()) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match='detections of 2 pictures, but objects of 1'):
        average_precisions([found(), found()], [truth(0)])
    with pytest.raises(ValueError, match='not finite'):
        average_precisions([found((0, float('nan')))], [truth(0)])
