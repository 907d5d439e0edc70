"""COCO's average precision against torchmetrics, by hand, and with crowds."""

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from timm_attn.downstream.data.samples import detection_target
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.metrics.coco import Picture, coco_ap, picture_of

# torchmetrics' own thresholds are rounded to float32, which moves an AP by up to 0.2 %
GRIDS: dict[str, Any] = dict(
    rec_thresholds=np.linspace(0, 1, 101).tolist(), iou_thresholds=np.linspace(0.5, 0.95, 10).tolist()
)
NAMES = {'AP': 'map', 'AP50': 'map_50', 'AP75': 'map_75', 'AP_small': 'map_small', 'AP_medium': 'map_medium'}


def guessed(target: dict[str, Any], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A detector's output that is nearly right."""
    boxes, masks = (target[key].as_subclass(torch.Tensor) for key in ('boxes', 'masks'))
    wrong = torch.rand(len(boxes), generator=generator) < 0.2
    labels = torch.where(wrong, torch.randint(1, 11, (len(boxes),), generator=generator), target['labels'])
    shift = int(torch.randint(0, 5, (1,), generator=generator))
    return dict(
        boxes=boxes + 3 * torch.randn(boxes.shape, generator=generator), labels=labels,
        scores=torch.rand(len(boxes), generator=generator), masks=masks.roll(shift, -1).bool(),
    )  # fmt: skip


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_against_torchmetrics(kind: str) -> None:
    scenes, generator = Scenes('train', 60, 96), torch.Generator().manual_seed(0)
    metric, pictures = MeanAveragePrecision(iou_type=kind, backend='faster_coco_eval', **GRIDS), []  # type: ignore[arg-type]
    for index in range(len(scenes)):
        image, target = scenes[index]
        output = guessed(target, generator)
        pictures.append(picture_of(index, image, target, output))
        plain = {key: value for key, value in target.items() if key != 'image_id'}
        metric.update([output], [{**plain, 'masks': target['masks'].bool()}])
    ours, theirs = coco_ap(pictures, 10, kind), metric.compute()
    assert 10 < ours['AP'] < 90
    for name, other in NAMES.items():
        assert ours[name] == pytest.approx(100 * float(theirs[other]), abs=1e-4), name
    assert ours['AP_large'] == -1 and ours['AP'] == pytest.approx(np.mean([ours[f'AP{t}'] for t in range(50, 100, 5)]))


def one(found: list[tuple[list[float], float]], crowd: bool = False) -> Picture:
    """A picture with a box of 10 x 10 at (10, 10), or a crowd there and a box of 10 x 10 at (60, 60)."""
    boxes = [[10.0, 10, 20, 20], [60, 60, 70, 70]] if crowd else [[10.0, 10, 20, 20]]
    flags = torch.tensor([True, False][: len(boxes)] if crowd else [False])
    target = detection_target(0, (100, 100), torch.tensor(boxes), torch.ones(len(boxes)), crowd=flags)
    output = dict(
        boxes=torch.tensor([box for box, _ in found]).reshape(-1, 4), labels=torch.ones(len(found), dtype=torch.int64),
        scores=torch.tensor([score for _, score in found]),
    )  # fmt: skip
    return picture_of(0, torch.zeros(3, 100, 100), target, output)


def test_by_hand() -> None:
    hit = [10.0, 10, 20, 20]
    assert coco_ap([one([(hit, 0.9)])], 1)['AP'] == pytest.approx(100)
    assert coco_ap([one([])], 1)['AP'] == 0
    assert coco_ap([one([([50.0, 50, 60, 60], 0.95), (hit, 0.9)])], 1)['AP'] == pytest.approx(50)  # one of two is right
    moved = coco_ap([one([([10.0, 10, 20, 17], 0.9)])], 1)  # IoU .7
    assert [moved[f'AP{t}'] for t in (50, 65, 75)] == pytest.approx([100, 100, 0])


def test_detections_in_a_crowd_do_not_count() -> None:
    real, inside = ([60.0, 60, 70, 70], 0.5), ([10.0, 10, 20, 20], 0.9)
    assert coco_ap([one([inside, real], crowd=True)], 1)['AP'] == pytest.approx(100)
    assert coco_ap([one([([30.0, 30, 40, 40], 0.9), real], crowd=True)], 1)['AP'] == pytest.approx(50)
