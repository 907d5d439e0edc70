"""torchvision's box losses with L1 in the place of smooth L1, as mmdetection has them."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import roi_heads
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork


class _L1:
    """torch.nn.functional, whose smooth_l1_loss is L1."""

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    @staticmethod
    def smooth_l1_loss(input: Tensor, target: Tensor, beta: float, reduction: str) -> Tensor:
        return F.l1_loss(input, target, reduction=reduction)


def _with(function: Callable[..., Any], **names: Any) -> Any:
    """The same function, in which these global names mean something else: torchvision has no option for the loss."""
    plain: Any = function
    return FunctionType(plain.__code__, {**plain.__globals__, **names}, plain.__name__, plain.__defaults__)


_box_loss = _with(roi_heads.fastrcnn_loss, F=_L1())


class L1RegionProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """The proposals' box loss: sum of |prediction - target| over the positive anchors / all sampled anchors."""

    compute_loss = _with(RegionProposalNetwork.compute_loss, F=_L1())


class L1RoIHeads(RoIHeads):  # type: ignore[misc]
    """The detections' box loss: sum of |prediction - target| over the positive boxes / all sampled boxes."""

    forward = _with(RoIHeads.forward, fastrcnn_loss=_box_loss)
