"""Which norms go into the convolutions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchvision.ops import FrozenBatchNorm2d

from tests.support.fused import relative
from timm_attn import fuse
from timm_attn.attention.layers import BatchNorm


class Gated(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.mean((2, 3), keepdim=True).sigmoid()


class OfTheBatch(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def frozen(channels: int) -> nn.Module:
    norm = FrozenBatchNormAct2d(channels)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


IN_THE_CONVOLUTION: dict[str, tuple[Callable[[int], nn.Module], bool]] = {
    'torch': (nn.BatchNorm2d, True),
    'torch, without bias': (partial(nn.BatchNorm2d, bias=False), True),
    'torch, without weight': (partial(nn.BatchNorm2d, affine=False), True),
    'torch, without statistics': (partial(nn.BatchNorm2d, track_running_stats=False), False),
    'torch, in many processes': (nn.SyncBatchNorm, True),
    'ours': (BatchNorm, True),
    'timm': (BatchNormAct2d, True),
    'timm, with another activation': (partial(BatchNormAct2d, act_layer=nn.SiLU), True),
    'timm, in many processes': (lambda channels: convert_sync_batchnorm(BatchNormAct2d(channels)), True),
    'timm, in many processes, by itself': (SyncBatchNormAct, True),
    'timm, by torch in many processes': (lambda c: nn.SyncBatchNorm.convert_sync_batchnorm(BatchNormAct2d(c)), True),
    'timm, frozen': (frozen, False),
    'torchvision, frozen': (FrozenBatchNorm2d, False),
    'a gate': (Gated, False),
    'statistics of the batch': (OfTheBatch, False),
    'groups': (partial(nn.GroupNorm, 2), False),
    'parametrised': (lambda c: parametrize.register_parametrization(nn.BatchNorm2d(c), 'weight', nn.Tanh()), False),
}


@pytest.mark.parametrize('kind', IN_THE_CONVOLUTION)
def test_norms(kind: str) -> None:
    make, folded = IN_THE_CONVOLUTION[kind]
    torch.manual_seed(0)
    norm: Any = make(4)
    for name, values in (*norm.named_parameters(), *norm.named_buffers()):
        if values.is_floating_point():
            nn.init.uniform_(values, 0.5, 2) if 'var' in name else nn.init.normal_(values)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 4, 3)).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        fused = fuse(net)
        assert relative(fused(x), net(x)) < 1e-12
    assert torch.equal(fused.get_submodule('layers.0').weight, net[0].weight) != folded


class AlwaysOn(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return 3 * input


def test_other_layers_that_only_look_idle() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), AlwaysOn(), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(x), net(x))


def test_a_net_that_eval_does_not_reach_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net[1].train = lambda mode: net[1]  # type: ignore[assignment, method-assign]
    with pytest.raises(ValueError, match="eval.. leaves '1' in training mode"):
        fuse(net)
