"""Which norms go into the convolutions, and which maps may be overwritten."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from tests.support.fused import Net, relative
from tests.support.timm_extra import build, images
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


def overwritten(net: nn.Module, x: Tensor, *watched: nn.Module) -> list[str]:
    """The layers whose maps, which hooks hold, are others after a forward pass."""
    kept: list[tuple[str, Tensor, Tensor]] = []

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        for what in (*inputs, output):
            if isinstance(what, Tensor):
                kept.append((type(layer).__name__, what, what.clone()))

    before = x.clone()
    handles = [layer.register_forward_hook(keep) for layer in watched]
    with torch.no_grad():
        outputs = net(x)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(net(x), outputs, rtol=1e-4, atol=1e-4)
    assert kept and torch.equal(x, before)
    return [name for name, now, then in kept if not torch.equal(now, then)]


WATCHED = ('resnet18', 'resnet18_simam', 'mobilenetv2_cbam', 'cifar_resnet20_gc', 'cifar_preresnet20_se')


@pytest.mark.parametrize('name', WATCHED)
def test_maps_that_hooks_hold_stay(name: str) -> None:
    fused: Any = fuse(build(name))
    x = images(fused)
    inside = {part for m in fused.modules() if isinstance(m, BatchNormAct2d) for part in m.children()}  # timm's affair
    watched = [m for m in fused.modules() if m not in inside]
    assert not overwritten(fused, x, *watched)
    for layer in [m for m in watched if isinstance(m, nn.Conv2d)][::5]:
        assert not overwritten(fused, x, layer)


@pytest.mark.parametrize('name', [*WATCHED[:4], 'squeezenet1_1_bam'])
def test_maps_that_others_hand_out_stay(name: str) -> None:
    """Layer by layer, traced again, and by torchvision's extractor."""
    fused: Any = fuse(build(name))
    x = images(fused)

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                kept.append((n.name, result, result.clone()))
            return result

    for net in (fused.layers, fx.symbolic_trace(fused), fx.symbolic_trace(fused.layers)):
        kept: list[tuple[str, Tensor, Tensor]] = []
        with torch.no_grad():
            torch.testing.assert_close(Recorder(net).run(x), fused(x), rtol=1e-4, atol=1e-4)
        assert kept and not [node for node, now, then in kept if not torch.equal(now, then)]
    nodes = [node for node, _ in fused.layers.named_modules() if 'conv' in node]
    nodes = [node for node in nodes if isinstance(fused.layers.get_submodule(node), nn.Conv2d)]
    extractor = create_feature_extractor(fused.layers, nodes, suppress_diff_warning=True).eval()
    with torch.no_grad():
        maps = extractor(x)
    for node, expected in extractor(x.clone().requires_grad_()).items():
        torch.testing.assert_close(maps[node], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    'act', ['ReLU', 'ReLU6', 'LeakyReLU', 'ELU', 'SELU', 'CELU', 'SiLU', 'Mish', 'Hardswish', None]
)
def test_activations_in_place(act: str | None) -> None:
    """They overwrite their input unless it has another user; one layer may be called at several places."""
    layers = [nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)]
    if act is None:
        net = Net(lambda net, x: F.relu(net.b(F.relu(net.a(x), inplace=True)), inplace=True), *layers)
    else:
        net = Net(lambda net, x: net.c(net.b(net.c(net.a(x)))), *layers, getattr(nn, act)(inplace=True))
    fused: Any = fuse(net.eval())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), net(x), check_stride=False)
    assert not overwritten(fused, x, *fused.modules())
    flags = [node.kwargs['inplace'] for node in fused.layers.graph.nodes if 'inplace' in node.kwargs]
    assert [str(flag) for flag in flags] == ['overwrite'] * 2
