"""What fuse does to nets whose maps others see: graphs, scripts, weights that change later, modes that keep maps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.fused import Net
from tests.support.timm_extra import build, images
from timm_attn import fuse

SCRIPTED = ('resnet18', 'resnet18_simam', 'resnet18_bam', 'squeezenet1_1', 'squeezenet1_1_bam', 'mobilenetv2_se')


@pytest.mark.parametrize('name', [*SCRIPTED, 'cifar_densenet100_12'])
def test_scripted(name: str) -> None:
    fused = fuse(build(name))
    x = images(fused)
    script = torch.jit.script(fused)
    with torch.no_grad():
        torch.testing.assert_close(script(x), fused(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'run',
    [
        lambda net, x: net.a(x) * ((x.shape[2] + x.shape[3]) + (x.shape[2] + x.shape[3])),  # additions of sizes
        lambda net, x: net.b(net.a(x)).view(x.size(0), -1),
        lambda net, x: (y := net.a(x), net.b(y) + net.c(x))[::-1],  # an activation in place
        lambda net, x: net.a(x) + x.shape[0],
        lambda net, x: net.b(net.a(x) + net.c(x)),
        lambda net, x: net.a(x) + net.b(net.c(x.mean((2, 3), keepdim=True))),  # a sum with a smaller map
        lambda net, x: net.a(x) + net.c(x) + net.a(x),  # a layer that is called twice
    ],
)
def test_forwards_of_others(run: Any) -> None:
    torch.manual_seed(0)
    net = Net(run, nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        fused, expected = fuse(net)(x), net(x)
    torch.testing.assert_close(fused, expected, check_stride=False)


def test_weights_that_change_later() -> None:
    with torch.inference_mode():
        net = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
        fused: Any = fuse(net)
        x = torch.randn(2, 3, 8, 8)
        for _ in range(2):
            torch.testing.assert_close(fused(x), net(x), check_stride=False)
            state = {k: torch.randn_like(v) for k, v in net.state_dict().items()}
            net.load_state_dict(state)
            next(m for m in fused.modules() if isinstance(m, nn.Conv2d)).load_state_dict(net[0].state_dict())


def test_nets_that_cannot_be_copied_or_followed() -> None:
    with pytest.raises(ValueError, match='torch cannot copy it'):
        fuse(nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3))))
    with pytest.raises(ValueError, match='cannot be fused, torch.fx cannot follow it'):
        fuse(Net(lambda net, x: x if len(x) else -x))


class Sees(nn.Module):
    """A net whose forward does what a graph of its layers does not."""

    def __init__(self, after: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.bn, self.after = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), after
        self.calls = 0

    def forward(self, x: Tensor, flag: Any = None, overwrite: int = 1) -> Any:
        return self.after(self, self.bn(self.conv(x)), flag)


def _held(net: Sees, y: Tensor, flag: Any) -> Tensor:
    held = [y]
    y += y.sin()
    return held[0] * y


def _counted(net: Sees, y: Tensor, flag: Any) -> Tensor:
    net.calls += 1
    return net.calls * y


UNSEEN: dict[str, tuple[Callable[..., Any], str | None]] = {
    'default arguments': (lambda net, y, flag: 2 * y if flag is None else y, None),
    'keywords': (lambda net, y, flag: net.bn(input=y).view(size=(2, -1)), None),
    'the weight of a convolution': (lambda net, y, flag: F.conv_transpose2d(y, net.conv.weight), None),
    'its bias': (lambda net, y, flag: y + net.conv.bias[:, None, None], None),
    'statistics of a norm': (lambda net, y, flag: y + net.bn.running_mean[:, None, None], None),
    'a map held elsewhere': (_held, 'would differ by'),
    'a random number': (lambda net, y, flag: y + 9 * torch.rand(()), 'would differ by'),
    'a count of its calls': (_counted, 'other outputs when it is called again'),
    'strides': (lambda net, y, flag: y.as_strided((2, 3, 8, 8), (3 * 4096, 4096, 64, 1)), 'would differ by|not run'),
}


@pytest.mark.parametrize('kind', UNSEEN)
def test_what_a_graph_does_not_see_is_found(kind: str) -> None:
    after, refused = UNSEEN[kind]
    net = Sees(after).eval()
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.normal_()
    if refused:
        with pytest.raises(ValueError, match=f'Sees cannot be fused: .*({refused})'):
            fuse(net)
        return
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(x), net(x), rtol=1e-4, atol=1e-4)


class Around(nn.Module):
    """A convolution and a norm, the convolution called alone too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.bn = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) - self.bn(self.inner[0](x))  # type: ignore[no-any-return]


def test_parts_of_a_layer_with_hooks_that_are_called_alone() -> None:
    net = Around().eval()
    net.inner[1].running_var.fill_(2), net.bn.running_var.fill_(0.1)
    net.inner.register_forward_hook(lambda *_: None)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net)(x), net(x), check_stride=False)


def test_parts_and_calls_that_cannot_be_followed() -> None:
    class Called(nn.Sequential):
        def __call__(self, x: Tensor) -> Tensor:
            return 2 * super().__call__(x)

    with pytest.raises(ValueError, match='it has a forward set on it|has forward hooks, or it has'):
        fuse(Called(nn.Conv2d(3, 3, 1)))
    with pytest.raises(ValueError, match='a part of it is scripted'):
        fuse(nn.Sequential(nn.Conv2d(3, 3, 1), torch.jit.script(nn.ReLU())))


class Kept(TorchDispatchMode):
    """Keeps what every operation gave, and a copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not func.is_view and not func._schema.is_mutable:
            self.kept.append((out, out.clone()))
        return out


def test_modes_that_keep_maps_keep_them_whole() -> None:
    net = build('cifar_resnet20_se')
    x = images(net)
    with torch.no_grad(), Kept() as mode:
        net(x)
    changed = [1 for out, then in mode.kept if not torch.equal(out, then)]
    # a net's own operations in place: the stem's activation, and per block two activations and the addition
    assert len(mode.kept) > 40 and len(changed) <= 28
