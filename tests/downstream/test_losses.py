"""L1 box losses against their formulas, and torchvision's where nothing is asked."""

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from tests.support.downstream import SMALL
from timm_attn.downstream import faster_rcnn


def detector(box_loss: str) -> Any:
    torch.manual_seed(0)
    return faster_rcnn('cifar_resnet20_simam', 4, box_loss=box_loss, **SMALL)


def test_l1_of_the_proposals() -> None:
    model = detector('l1')
    torch.manual_seed(1)
    objectness, deltas, targets = torch.randn(60, 1), torch.randn(60, 4), torch.randn(60, 4)
    labels = [torch.tensor([1.0] * 5 + [0.0] * 20 + [-1.0] * 5), torch.tensor([1.0] * 10 + [0.0] * 20)]
    _, loss = model.rpn.compute_loss(objectness, deltas, labels, [targets[:30], targets[30:]])
    positive = torch.cat(labels) == 1
    expected = (deltas[positive] - targets[positive]).abs().sum() / (torch.cat(labels) >= 0).sum()
    torch.testing.assert_close(loss, expected)


def test_l1_of_the_detections() -> None:
    """The heads' loss, for the samples that they drew themselves."""
    model = detector('l1')
    drawn: dict[str, Any] = {}
    select = model.roi_heads.select_training_samples

    def kept(*args: Any) -> Any:
        drawn['samples'] = select(*args)
        return drawn['samples']

    model.roi_heads.select_training_samples = kept
    model.roi_heads.box_predictor.register_forward_hook(lambda *args: drawn.update(output=args[2]))
    target = dict(boxes=torch.tensor([[2.0, 2, 20, 20], [5, 8, 30, 30]]), labels=torch.tensor([3, 1]))
    losses = model([torch.rand(3, 32, 32)], [target])
    _, _, (labels,), (targets,) = drawn['samples']
    boxes: Tensor = drawn['output'][1].reshape(len(labels), -1, 4)
    positive = labels > 0
    expected = (boxes[positive, labels[positive]] - targets[positive]).abs().sum() / len(labels)
    assert positive.any()
    torch.testing.assert_close(losses['loss_box_reg'], expected)


def test_the_others_keep_torchvisions() -> None:
    assert type(detector('smooth_l1').roi_heads) is RoIHeads
    torch.manual_seed(0)
    losses = []
    for box_loss in ('smooth_l1', 'l1'):
        model = detector(box_loss)
        torch.manual_seed(2)
        target = dict(boxes=torch.tensor([[2.0, 2, 20, 20]]), labels=torch.tensor([3]))
        losses.append(model([torch.ones(3, 32, 32)], [target]))
    torch.testing.assert_close(losses[0]['loss_classifier'], losses[1]['loss_classifier'])
    torch.testing.assert_close(losses[0]['loss_objectness'], losses[1]['loss_objectness'])
    assert losses[1]['loss_rpn_box_reg'] > losses[0]['loss_rpn_box_reg']  # |x| > its smooth form
    assert losses[1]['loss_box_reg'] > losses[0]['loss_box_reg']
