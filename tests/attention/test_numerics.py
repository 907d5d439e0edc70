"""Numerical safety as properties: every attention x dtype x kind of values, over maps, widths and modes."""

import copy
import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.support.reference import REFERENCE
from timm_attn import ops
from timm_attn.attention import ATTENTION

DTYPES = {  # -> (the largest values of a map, the relative error of an output against float64)
    torch.float32: (1e15, 1e-5),
    torch.bfloat16: (1e15, 2e-2),
    torch.float16: (1e4, 3e-3),
}
VALUES: dict[str, Callable[[Tensor, torch.dtype], Tensor]] = {
    'generic': lambda x, dtype: x,
    'constant': lambda x, dtype: torch.full_like(x, 3.0),
    'huge': lambda x, dtype: x.clamp(-1, 1) * DTYPES[dtype][0],
    'denormal': lambda x, dtype: x * torch.finfo(dtype).tiny / 4,
}
MAPS = [(1, 1), (1, 7), (5, 3), (13, 8), (56, 56)]  # one pixel, a line, odd, not square, large
CHANNELS = [1, 8, 32]  # one, fewer than the reduction, more
MODES = [(1, True), (2, True), (2, False)]  # (images, training)
FORMATS = [torch.contiguous_format, torch.channels_last]

CASES = list(itertools.product(ATTENTION, DTYPES, VALUES))


def every(cases: list[tuple[str, torch.dtype, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize('name, dtype, values', cases, ids=lambda value: str(value).removeprefix('torch.'))


def layer_of(name: str, channels: int) -> nn.Module:
    """A layer as it is built, but norms and last weights that start at zero pass something on."""
    row = ATTENTION[name]
    layer = row.layer(channels, **row.defaults)
    for parameter in layer.parameters():
        if not parameter.any() and parameter.dim() > 1 or (parameter == parameter.flatten()[0]).all():
            nn.init.normal_(parameter, 0.5, 0.1)
    return layer


def gradients(layer: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients of its mean by name."""
    x = x.detach().requires_grad_()
    y = layer(x)
    tensors = {'x': x, **dict(layer.named_parameters())}
    grads = torch.autograd.grad(y.double().mean(), list(tensors.values()))
    return y.detach(), dict(zip(tensors, grads, strict=True))


POOLED = ('se', 'eca', 'srm', 'simam')  # the others have a convolution or a maximum, which torch refuses without pixels


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shape', [(2, 8, 0, 5), (2, 8, 5, 0), (2, 8, 0, 0), (0, 8, 5, 5), (0, 8, 0, 0)])
@pytest.mark.parametrize('name', ATTENTION)
def test_empty_maps(name: str, shape: tuple[int, ...], training: bool) -> None:
    """No pixels or no images give none."""
    if name in POOLED or 0 not in shape[2:]:
        assert layer_of(name, 8).train(training)(torch.zeros(shape)).shape == shape


def test_moments_of_few_pixels() -> None:
    """The divisor is max(n - 1, 1) for every n, also where n is symbolic."""
    for n in range(5):
        x = torch.randn(2, 3, 1, n, dtype=torch.float64)
        _, deviations, variance = ops.channel_moments(x)
        expected = x.var(dim=(2, 3), keepdim=True) if n > 1 else torch.zeros(2, 3, 1, 1, dtype=torch.float64)
        torch.testing.assert_close(variance, expected)
        assert deviations.shape == x.shape


def test_moments_are_traceable() -> None:
    class Moments(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return ops.channel_moments(x)

    example = torch.randn(2, 3, 4, 5)
    size = {2: torch.export.Dim('h', min=2), 3: torch.export.Dim('w', min=2)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch.jit.script is deprecated, timm's users script all the same
        traced = [
            torch.jit.script(Moments()),
            torch.fx.symbolic_trace(Moments()),
            torch.export.export(Moments(), (example,), dynamic_shapes=(size,)).module(),
        ]
    for other in (example, torch.randn(2, 3, 7, 2)):
        for module in traced:
            torch.testing.assert_close(module(other), ops.channel_moments(other))


@pytest.mark.parametrize('name', ATTENTION)
@pytest.mark.parametrize('training', [True, False])
def test_autocast_does_not_widen_a_map(name: str, training: bool) -> None:
    """A float32 gate would make the net behind it float32."""
    layer = layer_of(name, 32).train(training)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer(torch.randn(2, 32, 5, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@every(CASES)
def test_a_layer_is_safe(name: str, dtype: torch.dtype, values: str) -> None:
    """Finite outputs, gradients finite wherever float64 finds one that the dtype can hold, dtype and format kept."""
    for (h, w), channels, (batch, training) in itertools.product(MAPS, CHANNELS, MODES):
        layer = layer_of(name, channels).to(dtype).train(training)
        exact = copy.deepcopy(layer).double()
        x = VALUES[values](torch.randn(batch, channels, h, w), dtype).to(dtype)
        memory_format = FORMATS[(h + channels) % 2]
        x = x.to(memory_format=memory_format)
        y, grads = gradients(layer, x)
        where = f'{tuple(x.shape)}, training={training}'
        assert y.dtype == dtype and y.is_contiguous(memory_format=memory_format), where
        assert y.isfinite().all(), where
        for key, expected in gradients(exact, x.double())[1].items():
            held = expected.abs() < torch.finfo(dtype).max / 2
            assert grads[key][held].isfinite().all(), f'{key}, {where}'
        assert all(buffer.isfinite().all() for buffer in layer.buffers()), where


@every([case for case in CASES if case[2] != 'huge' or case[0] == 'simam'])
def test_a_layer_is_its_formula(name: str, dtype: torch.dtype, values: str) -> None:
    """Of huge maps only SimAM's: a gate there is the sign of a sum whose terms cancel."""
    tolerance, step = DTYPES[dtype][1], torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for (h, w), channels in itertools.product(MAPS, CHANNELS):
        layer = layer_of(name, channels).to(dtype).eval()
        x = VALUES[values](torch.randn(2, channels, h, w), dtype).to(dtype)
        state = {key: value.double() for key, value in layer.state_dict().items()}
        expected = REFERENCE[name](x.double(), state)
        error, size = (layer(x).double() - expected).norm(), expected.norm()
        bound = tolerance * size + step * x.numel() ** 0.5  # a denormal is a whole number of steps
        assert error <= bound, f'{tuple(x.shape)}: relative error {error / size:.2g}'


def test_simam_in_float16_of_deviation_300_is_right() -> None:
    """The squares, 90,000, are beyond float16: the authors' layer returns NaN or the input halved."""
    x = (300 * torch.randn(2, 32, 28, 28)).half()
    expected = REFERENCE['simam'](x.double(), {})
    torch.testing.assert_close(ATTENTION['simam'].layer(32)(x).double(), expected, rtol=1e-3, atol=0)
