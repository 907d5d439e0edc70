"""fuse: what is left of a net, and that the rest computes the same. Every name is checked by scripts/timm_suite.py."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.fused import relative
from tests.support.timm_extra import build, images
from timm_attn import fuse
from timm_attn.attention import AttentionLayer
from timm_attn.deploy.fused_net import add_to

# a net -> the norms outside of its attention layers that are left, and the additions in place, and all additions
NETS = {
    'resnet18': (0, 8, 8),
    'resnet18_se': (0, 8, 8),
    'resnet50_simam': (16, 16, 16),
    'mobilenetv2_100': (0, 10, 10),
    'mobilenetv2_simam': (17, 10, 10),
    'mobilenetv2_cbam': (0, 10, 10),
    'resnet18_bam': (0, 8, 8),
    'cifar_resnet20_gc': (0, 9, 9),
    'cifar_mobilenetv2_srm': (0, 14, 14),
    'cifar_preresnet20_simam': (10, 9, 9),
    'cifar_densenet100_12_bam': (51, 0, 0),
    'squeezenet1_1_bam': (0, 0, 0),
}


def norms_of(net: nn.Module) -> int:
    """How many norms there are outside of attention layers."""
    inside = {id(part) for m in net.modules() if isinstance(m, AttentionLayer) for part in m.modules()}
    return sum('Norm' in type(m).__name__ for m in net.modules() if id(m) not in inside)


def additions(net: Any) -> list[bool]:
    """Of each addition of a fused net, whether it is in place."""
    names = [getattr(node.target, '__name__', '') for node in net.layers.graph.nodes]
    return [name == 'add_to' for name in names if 'add' in name]


@pytest.mark.parametrize('name', NETS)
def test_what_is_left(name: str) -> None:
    model = build(name).double()
    x = images(model).double()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        fused: Any = fuse(model)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            shown = x.contiguous(memory_format=memory_format)
            assert relative(fused(shown), expected) < 1e-11
            assert torch.equal(shown, x)
    assert relative(fused(x), expected) < 1e-11  # with gradients wanted
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    norms, in_place, sums = NETS[name]
    assert norms_of(fused) == norms
    assert (sum(additions(fused)), len(additions(fused))) == (in_place, sums)


@pytest.mark.parametrize('name', ['cifar_resnet20_simam', 'cifar_preresnet20_cbam'])
def test_graphs_of_it(name: str) -> None:
    """Scripted, exported for every size, copied, pickled, and fused again."""
    fused = fuse(build(name))
    x = images(fused)
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(fused, (x,), dynamic_shapes=(sizes,)).module()
    twins = (program, torch.jit.script(fused), copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)), fuse(fused))
    for net in twins[2:]:  # they still add in place
        assert additions(net) == additions(fused) == [True] * 9
    with torch.no_grad():
        for twin in twins:
            for other in (x, torch.randn(3, x.shape[1], x.shape[2] + 32, x.shape[3] + 64)):
                torch.testing.assert_close(twin(other), fused(other), rtol=1e-4, atol=1e-4)


def test_compiled() -> None:
    fused = fuse(build('cifar_resnet20_simam'))
    x = images(fused)
    with torch.no_grad():
        actual = torch.compile(fused, backend='aot_eager', fullgraph=True)(x)
        torch.testing.assert_close(actual, fused(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['cifar_resnet20_simam', 'cifar_resnet20_se', 'cifar_resnet20_cbam'])
def test_half_precision(name: str) -> None:
    """As near to the float64 net as the net of that dtype itself."""
    model = build(name).double()
    x = images(model).double()
    with torch.no_grad():
        exact = model(x)
        for dtype in (torch.bfloat16, torch.float16):
            half = copy.deepcopy(model).to(dtype)
            plain, fused = (net(x.to(dtype)) for net in (half, fuse(half)))
            assert fused.dtype == dtype and relative(fused, exact) <= 2 * relative(plain, exact)


def test_a_channel_that_its_norm_switches_off() -> None:
    model = build('cifar_resnet20_simam').double()
    for norm in [m for m in model.modules() if isinstance(m, _BatchNorm)]:
        norm.weight.data[::3] = 0
    x = images(model).double()
    for fused in (fuse(model), torch.jit.script(fuse(model))):
        with torch.no_grad():
            assert relative(fused(x), model(x)) < 1e-11


def test_it_is_a_net_of_timm() -> None:
    model = timm.create_model('cifar_resnet20_eca', num_classes=7, drop_rate=0.5).train()
    model.set_grad_checkpointing()
    fused: Any = fuse(model)
    assert model.training and model.grad_checkpointing and not fused.training
    assert resolve_model_data_config(fused) == resolve_model_data_config(model) and fused.num_classes == 7
    assert not any(p.requires_grad for p in fused.parameters()) and all(p.requires_grad for p in model.parameters())
    assert fused.eval() is fused
    with pytest.raises(RuntimeError, match='A fused net is for inference'):
        fused.train()
    assert not any(module.training for module in fused.modules())


@pytest.mark.parametrize('name', ['resnet18_se', 'resnet50_simam'])
def test_maps_are_channels_last(name: str) -> None:
    """From the first convolution on, but for convolutions with many weights, which torch is slower with."""
    fused: Any = fuse(build(name))
    x, seen = images(fused), []
    for layer in (m for m in fused.modules() if isinstance(m, nn.Conv2d)):
        layer.register_forward_hook(
            lambda conv, inputs, y: seen.append(
                y.is_contiguous(memory_format=torch.channels_last) == (conv.weight.numel() < 2e6)
            )
        )
    with torch.no_grad():
        fused(x)
    assert len(seen) == sum(isinstance(m, nn.Conv2d) for m in fused.modules()) and all(seen)
    assert x.is_contiguous()


def test_gradients_of_the_images() -> None:
    """Additions in place do not break them."""
    model = build('cifar_resnet20_se').double()
    fused = fuse(model)
    x = images(model).double().requires_grad_()
    expected, actual = (torch.autograd.grad(net(x).sum(), x)[0] for net in (model, fused))
    assert relative(actual, expected) < 1e-11


def test_add_to() -> None:
    """In place where the sum has the shape and the dtype of the first term."""
    x, other = torch.randn(2, 2, 4, 3, 3)
    expected = x + other
    assert add_to(x, other) is x and torch.equal(x, expected)
    for small in (torch.randn(2, 4, 1, 1), torch.randn(2, 4, 3, 3).half()):
        before = small.clone()
        assert torch.equal(add_to(small, other), small + other) and torch.equal(small, before)


def test_features() -> None:
    net = timm.create_model('cifar_resnet20_simam', features_only=True).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(x), net(x), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """One convolution and one norm, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.act(self.norm(self.conv(y)) + y + y)


def test_layers_called_twice_stay() -> None:
    net = Shared().double().eval()
    nn.init.normal_(net.norm.running_mean)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(x), net(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_fused() -> None:
    with pytest.raises(ValueError, match='Branching cannot be fused, torch.fx cannot follow it'):
        fuse(Branching())
    for net in (torch.jit.script(nn.ReLU()), torch.compile(nn.ReLU())):
        with pytest.raises(ValueError, match='a scripted or compiled net cannot be fused'):
            fuse(net)


def twice(layer: Any, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


@pytest.mark.parametrize(
    'hook', [lambda conv: conv.register_forward_hook(twice), lambda conv: torch.nn.utils.spectral_norm(conv)]
)
def test_layers_with_hooks_stay(hook: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    hook(net[0])
    x = torch.randn(2, 3, 8, 8)
    fused = fuse(net)
    with torch.no_grad():
        assert (fused(x) - net(x)).abs().max() < 1e-5


def set_forward(net: Any) -> None:
    forward = net.forward
    net.forward = lambda x: 2 * forward(x)


OF_ITS_OWN: dict[str, Callable[[nn.Module], Any]] = {
    'hook': lambda net: net.register_forward_hook(twice),
    'hook with keywords': lambda net: net.register_forward_hook(lambda *args: None, with_kwargs=True),
    'pre-hook': lambda net: net.register_forward_pre_hook(lambda layer, inputs: None),
    'forward': set_forward,
}


@pytest.mark.parametrize('change', OF_ITS_OWN.values(), ids=OF_ITS_OWN)
def test_a_net_with_hooks_of_its_own_is_refused(change: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    change(net)
    with pytest.raises(
        ValueError, match='Sequential cannot be fused: the net itself or all modules have forward hooks'
    ):
        fuse(net)
    wrapped = nn.Sequential(net, nn.ReLU()).eval()  # as part of another it stays as it is
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse(wrapped)(x), wrapped(x))


def test_hooks_of_all_modules_are_refused() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        with pytest.raises(ValueError, match='or all modules have forward hooks'):
            fuse(nn.ReLU())
    finally:
        handle.remove()
    with pytest.raises(ValueError, match='its outputs come from hooks'):
        fuse(timm.create_model('resnet18', features_only=True, feature_cls='hook'))


def test_hooks_of_a_part_stay() -> None:
    """One that records, on a stage."""
    net = build('cifar_resnet20_se')
    seen: list[Tensor] = []
    net.layer2.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    x, fused = images(net), fuse(net)
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-4)
    assert len(seen) == 2
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-4)
