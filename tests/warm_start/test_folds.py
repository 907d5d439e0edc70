"""The scales of maps: exact or refused, never wrong."""

import copy
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.random_nets import RandomNet
from timm_attn.attach import attention_layers
from timm_attn.attention import BAM, SE, AttentionLayer
from timm_attn.warm_start.folds import Fold, fold
from timm_attn.warm_start.scales import PINNED, CannotFold, Gated, Scales

ONE, HALF = Fraction(1), Fraction(1, 2)
IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def start(layer: AttentionLayer, path: str, mean: Tensor | None) -> float:
    return layer.identity_start(mean)


def folded(net: nn.Module, example: Tensor) -> tuple[list[Fold], float]:
    """Folds a net in evaluation; what was scaled, and the deviation from the net without attention."""
    plain = copy.deepcopy(net.eval())
    for layer in attention_layers(plain).values():
        layer.forward = torch.clone  # type: ignore[method-assign]
    with torch.no_grad():
        folds = fold(net, start, example, attention_layers(net), {})
        x = torch.randn_like(example)
        expected, found = plain(x), net(x)
    return folds, float((expected - found).abs().max() / expected.abs().max())


@pytest.mark.parametrize('seeds', [range(i, i + 25) for i in range(0, 100, 25)], ids=str)
def test_nets_at_random_are_folded_exactly_or_refused(seeds: range) -> None:
    exact = scaled = 0
    for seed in seeds:
        torch.manual_seed(seed)
        net = RandomNet(seed)
        try:
            folds, deviation = folded(net, torch.randn(2, 3, 6, 6, dtype=torch.float64))
        except CannotFold:
            continue
        up_to_eps = any(one.rescales_a_norm and 'norm' in one.path for one in folds)  # group norms
        assert deviation < (1e-3 if up_to_eps else 1e-9), seed
        exact, scaled = exact + 1, scaled + bool(folds)
    assert exact >= 15 and scaled >= 10


Run = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Two convolutions, norms and an attention layer, put together by a function."""

    def __init__(self, run: Run, attention: Callable[[int], nn.Module] = SE) -> None:
        super().__init__()
        self.run = run
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.norm2, self.attention = nn.BatchNorm2d(8), nn.BatchNorm2d(8), attention(8)
        self.mixer = nn.Conv2d(16, 8, 3, groups=2)
        self.double()

    def front(self, x: Tensor) -> Tensor:
        return self.norm(self.conv1(x))

    def pinned(self, x: Tensor) -> Tensor:
        """A map that can only have the scale 1."""
        return F.silu(self.front(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


# What a net is, and what is scaled in it: the path, the scales of its inputs, and of its output
SCALED: dict[str, tuple[Run, Callable[[int], nn.Module], tuple[str, set[Fraction], Fraction]]] = {
    'the norm in front': (lambda n, x: n.conv2(n.attention(n.front(x))), SE, ('norm', {ONE}, Fraction(2))),
    'the convolution behind': (lambda n, x: n.conv2(n.attention(n.pinned(x))), SE, ('conv2', {HALF}, ONE)),
    'past a gate of scale 1': (
        lambda n, x: n.conv2(n.pinned(x).sigmoid() * n.attention(n.pinned(x)) * n.pinned(x).sigmoid()),
        SE,
        ('conv2', {HALF}, ONE),
    ),
    'half of a grouped convolution': (
        lambda n, x: n.mixer(torch.cat([n.attention(n.pinned(x)), n.pinned(x)], 1)),
        SE,
        ('mixer', {HALF, ONE}, ONE),
    ),
    'a norm behind, where nothing else can be': (
        lambda n, x: n.norm2(n.attention(n.pinned(x))),
        BAM,
        ('norm2', {Fraction(3, 2)}, ONE),
    ),
}


@pytest.mark.parametrize('what', SCALED)
def test_what_is_scaled(what: str) -> None:
    run, attention, (path, inputs, output) = SCALED[what]
    folds, deviation = folded(Net(run, attention), IMAGES)
    assert [(one.path, set(one.inputs), one.output) for one in folds] == [(path, inputs, output)]
    assert deviation < 1e-12


def scripted(n: Any, x: Tensor) -> Tensor:
    def double(x: Tensor) -> Tensor:
        return 2 * x

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch deprecates it
        function = torch.jit.script(double)
    return n.conv2(function(n.attention(n.front(x))))


def branch_on_a_value(n: Any, x: Tensor) -> Tensor:
    y = n.attention(n.pinned(x))
    return n.conv2(y) if y.sum() > 0 else n.conv2(-y)


def write_a_slice(n: Any, x: Tensor) -> Tensor:
    y = n.attention(n.pinned(x))
    y[:, :2] = n.pinned(x)[:, :2]
    return n.conv2(y)


def divide_by_a_number(n: Any, x: Tensor) -> Tensor:
    y = n.attention(n.pinned(x))
    return n.conv2(y / y.amax().item())


def scale_an_earlier_view(n: Any, x: Tensor) -> Tensor:
    y = n.conv1(x)
    view = y.view(y.shape)
    y *= n.norm2.weight.view(1, -1, 1, 1)
    return torch.tanh(n.attention(y)) + torch.tanh(view)


def share_memory(n: Any, x: Tensor) -> Tensor:
    y = n.pinned(x)
    return n.conv2(n.attention(y)) + n.mixer(torch.cat([y, y], 1))


REFUSED: dict[str, tuple[Run, str]] = {
    'the output itself': (lambda n, x: n.attention(n.pinned(x)), 'the output needs the factor'),
    'a branch on a value': (branch_on_a_value, 'needs the factor'),
    'two paths that disagree': (lambda n, x: n.conv2(n.pinned(x) + n.attention(n.pinned(x))), 'needs the factor'),
    'an activation behind': (lambda n, x: torch.tanh(n.attention(n.pinned(x))), 'needs the factor'),
    'a norm without weights': (lambda n, x: F.instance_norm(n.attention(n.pinned(x))), 'needs the factor'),
    'a weight used twice': (lambda n, x: n.conv2(n.conv2(n.attention(n.pinned(x)))), 'conv2 needs the factor'),
    'a number that is read': (divide_by_a_number, 'needs the factor'),
    'a view of what is scaled later': (scale_an_earlier_view, 'needs the factor'),
    'two weights in one memory': (share_memory, 'mixer needs the factor'),
    'a written slice': (write_a_slice, 'needs the factor'),
    'an attention that does not run': (lambda n, x: n.conv2(n.front(x)), 'attention does not run'),
    'a scripted function': (scripted, 'conv2 takes a map whose origin is out of sight'),
}


@pytest.mark.parametrize('what', REFUSED)
def test_what_is_refused_changes_no_weight(what: str) -> None:
    run, message = REFUSED[what]
    net: Any = Net(run).eval()
    if run is share_memory:
        net.mixer.weight.data = net.conv2.weight.data
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(CannotFold, match=message):
        fold(net, start, IMAGES, attention_layers(net), {})
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items() if 'attention' not in key)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_batch_norm_behind_takes_the_statistics_of_the_scaled_map() -> None:
    net: Any = Net(lambda n, x: n.norm2(n.attention(n.pinned(x))), BAM).eval()
    net.norm2.running_mean.normal_()
    net.norm2.running_var.uniform_(0.5, 1.5)
    mean, var = net.norm2.running_mean.clone(), net.norm2.running_var.clone()
    fold(net, start, IMAGES, attention_layers(net), {})
    torch.testing.assert_close(net.norm2.running_mean, 1.5 * mean)
    torch.testing.assert_close(net.norm2.running_var, 2.25 * (var + 1e-5) - 1e-5)


def test_scales_are_exact_and_contradictions_are_errors() -> None:
    scales = Scales()
    numbers = [scales.new() for _ in range(40)]
    for a, b in zip(numbers, numbers[1:], strict=False):
        scales.relate(a, b, Fraction(3, 2), 'here')
    scales.relate(numbers[0], numbers[-1], Fraction(3, 2) ** 39, 'here')
    with pytest.raises(CannotFold, match='there needs the factor 1 between two maps, but what .* shared. makes it 9/4'):
        scales.relate(numbers[3], numbers[5], ONE, 'there')
    scales.relate(PINNED, numbers[20], ONE, 'here')
    solved = scales.solve()
    assert (solved[numbers[0]], solved[numbers[39]]) == (Fraction(2, 3) ** 20, Fraction(3, 2) ** 19)


def test_the_heaviest_scales_are_kept() -> None:
    scales = Scales()
    a, b, c = scales.new(), scales.new(), scales.new()
    for other in (b, c):
        scales.relate(a, other, HALF, 'here')
    assert scales.solve() == [1, 2, 1, 1]
    scales.prefer(a, 10)
    assert scales.solve() == [1, 1, HALF, HALF]


def beside_a_shortcut(n: Any, x: Tensor) -> Tensor:
    y = n.pinned(x)
    return torch.tanh(y + n.attention(n.norm2(n.conv2(y))))


GATE = torch.linspace(0.2, 0.9, 8, dtype=torch.float64)
GATED: dict[str, tuple[Run, str]] = {
    'the norm in front': (lambda n, x: n.conv2(n.attention(n.front(x))), 'norm'),
    'the norm in front of a shortcut': (beside_a_shortcut, 'norm2'),
    'the convolution behind': (lambda n, x: n.conv2(n.attention(n.pinned(x))), 'conv2'),
    'the batch norm behind': (lambda n, x: n.norm2(n.attention(n.pinned(x))), 'norm2'),
    'a grouped convolution of two maps': (
        lambda n, x: n.mixer(torch.cat([n.attention(n.pinned(x)), n.pinned(x)], 1)),
        'mixer',
    ),
    'a linear layer behind a flattened map': (lambda n, x: n.linear(n.attention(n.pinned(x)).flatten(1)), 'linear'),
}


@pytest.mark.parametrize('what', GATED)
def test_a_gate_per_channel_is_folded(what: str) -> None:
    run, path = GATED[what]
    net: Any = Net(run).eval()
    net.linear = nn.Linear(8 * IMAGES.shape[2] * IMAGES.shape[3], 5).double()
    net.norm2.running_mean.normal_()
    plain = copy.deepcopy(net)
    plain.attention.forward = lambda x: GATE[:, None, None] * x
    (one,) = fold(net, start, IMAGES, ['attention'], {'attention': GATE})
    assert one.path == path and 'by channel' in one.words
    torch.testing.assert_close(net(IMAGES), plain(IMAGES), rtol=1e-12, atol=1e-12)


def over_channels(n: Any, x: Tensor) -> Tensor:
    return F.layer_norm(n.attention(n.pinned(x)).mean((2, 3)), (8,), n.norm2.weight, n.norm2.bias)


@pytest.mark.parametrize(
    'run, message',
    [
        (over_channels, 'normalises over channels of other scales'),
        (lambda n, x: n.attention(n.pinned(x)), r'makes it 1/2 gate\(attention\)\^-1'),
    ],
)
def test_a_gate_per_channel_that_cannot_be_folded_is_refused(run: Run, message: str) -> None:
    net: Any = Net(run).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(CannotFold, match=message):
        fold(net, start, IMAGES, ['attention'], {'attention': GATE})
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items() if 'attention' not in key)


def test_symbols_cancel() -> None:
    a, b = (Gated(Fraction(2), ((name, 1),)) for name in 'ab')
    assert a / a == ONE and (a * b) / b == a and 1 / (1 / a) == a and a * HALF == Gated(ONE, (('a', 1),))
    assert a * b == b * a and a != b and hash(a * b) == hash(b * a) and str(a / b) == '1 gate(a)^1 gate(b)^-1'
