"""What a detector refuses, in one sentence that names it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.downstream import SMALL
from timm_attn.downstream import faster_rcnn, mask_rcnn

BOX = [2.0, 2.0, 20.0, 20.0]
NAN = float('nan')


def sample(**changes: Any) -> dict[str, Any]:
    values = dict(boxes=torch.tensor([BOX]), labels=torch.tensor([1]), masks=torch.ones(1, 32, 32, dtype=torch.uint8))
    return {**values, **changes}


@pytest.fixture(scope='module')
def model() -> Any:
    return mask_rcnn('cifar_resnet20_simam', 4, **SMALL)


IMAGE = torch.rand(3, 32, 32)
PICTURES: list[tuple[Callable[[], Any], str]] = [
    (lambda: IMAGE[:1], r'Picture 0 of the batch has shape \[1, 32, 32], but must be \[3, H, W]'),
    (lambda: IMAGE[0], r'has shape \[32, 32], but must be'),
    (lambda: IMAGE.masked_fill(IMAGE > 0.99, NAN), 'Picture 0 of the batch has values that are not finite'),
    (lambda: (255 * IMAGE).byte(), 'is torch.uint8, but must be of floats from 0 to 1'),
]
TARGETS: list[tuple[dict[str, Any], str]] = [
    (dict(labels=torch.tensor([0])), r'has the label 0, but the classes are 1 to 3 \(0 is the background\)'),
    (dict(labels=torch.tensor([11])), 'has the label 11, but the classes are 1 to 3'),
    (dict(labels=torch.tensor([1, 2])), r'has 1 boxes, but labels of shape \[2]'),
    (dict(boxes=torch.zeros(0), labels=torch.zeros(0).long()), r'shape \[0], but it must be \[N, 4], also .*\[0, 4]'),
    (dict(boxes=torch.tensor([[2, 2, 60, 20.0]])), r'has the box \[2.0, 2.0, 60.0, 20.0], but .* picture of 32 x 32'),
    (dict(boxes=torch.tensor([[20.0, 2, 2, 20]])), r'has the box \[20.0, 2.0, 2.0, 20.0], but x1 < x2'),
    (dict(boxes=torch.tensor([[NAN, 2, 2, 20]])), r'has the box \[nan, 2.0, 2.0, 20.0]'),
    (dict(masks=torch.ones(1, 16, 16)), r'has masks of shape \[1, 16, 16], but they must be \[1, 32, 32]'),
    (dict(boxes=None), 'has no tensor boxes'),
]


@pytest.mark.parametrize(('image', 'message'), PICTURES, ids=[m[:40] for _, m in PICTURES])
@pytest.mark.parametrize('training', [True, False])
def test_pictures(image: Callable[[], Any], message: str, training: bool, model: Any) -> None:
    with pytest.raises(ValueError, match=message):
        model.train(training)([image()], [sample()] if training else None)


@pytest.mark.parametrize(('changes', 'message'), TARGETS, ids=[m[:40] for _, m in TARGETS])
def test_targets(changes: dict[str, Any], message: str, model: Any) -> None:
    with pytest.raises(ValueError, match=f'^Target 1 of the batch .*{message}'):
        model.train()([IMAGE, IMAGE], [sample(), sample(**changes)])


def test_no_targets(model: Any) -> None:
    with pytest.raises(ValueError, match='needs one target for each of the 1 pictures, but there are none'):
        model.train()([IMAGE])


def test_a_net_of_one_channel_refuses_three() -> None:
    grey = faster_rcnn('cifar_resnet20_simam', 4, backbone_kwargs=dict(in_chans=1), **SMALL)
    with pytest.raises(ValueError, match=r'has shape \[3, 32, 32], but must be \[1, H, W]'):
        grey([IMAGE], [sample()])


def test_a_picture_without_a_box_trains(model: Any) -> None:
    empty = sample(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), masks=torch.zeros(0, 32, 32))
    losses = model.train()([IMAGE, IMAGE], [sample(), empty])
    assert all(loss.isfinite() for loss in losses.values())
