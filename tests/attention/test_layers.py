"""Every row of ATTENTION: the paper's formula, gradients, odd maps, half precision, counts, bad input."""

import copy
import warnings
from typing import Any

import pytest
import torch
from timm.layers import FrozenBatchNormAct2d
from timm.utils import freeze
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.support.reference import PARAMETERS, REFERENCE, bam_maps
from timm_attn.attention import ATTENTION, ECA
from timm_attn.attention.eca import adaptive_kernel_size

every_attention = pytest.mark.parametrize('name', list(ATTENTION))
MAPS = [(2, 32, 7, 7), (3, 16, 5, 9), (1, 48, 1, 1), (2, 20, 1, 6), (2, 8, 4, 3), (2, 1, 6, 5)]


def layer_of(name: str, channels: int, **kwargs: Any) -> nn.Module:
    """A layer whose parameters and buffers are all away from their special initial values."""
    row = ATTENTION[name]
    layer = row.layer(channels, **row.defaults, **kwargs)
    with torch.no_grad():
        for key, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if 'var' in key else tensor.normal_(0, 0.5)
    return layer


def state_of(layer: nn.Module) -> dict[str, Tensor]:
    return {k: v.double() for k, v in layer.state_dict().items()}


def test_every_row_has_a_reference_and_a_count() -> None:
    assert list(REFERENCE) == list(PARAMETERS) == list(ATTENTION)


@every_attention
@pytest.mark.parametrize('shape', MAPS, ids=str)
def test_is_the_papers_formula(name: str, shape: tuple[int, ...]) -> None:
    layer = layer_of(name, shape[1]).double().eval()
    x = 3 * torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), REFERENCE[name](x, state_of(layer)), rtol=1e-10, atol=1e-10)


@every_attention
def test_attention_is_what_is_applied(name: str) -> None:
    layer = layer_of(name, 24).double().eval()
    x = torch.randn(2, 24, 6, 5, dtype=torch.float64)
    applied = layer(x) - x if name == 'gc' else layer(x) / x
    torch.testing.assert_close(layer.attention(x).expand_as(x), applied, rtol=1e-6, atol=1e-8)


@every_attention
@pytest.mark.parametrize('channels', [1, 8, 24, 64, 256])
def test_parameter_count(name: str, channels: int) -> None:
    row = ATTENTION[name]
    layer = row.layer(channels, **row.defaults)
    assert sum(p.numel() for p in layer.parameters()) == PARAMETERS[name](channels)


@every_attention
def test_gradients(name: str) -> None:
    layer = layer_of(name, 6).double().eval()
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@every_attention
@pytest.mark.parametrize('shape', [(1, 32, 1, 1), (1, 4, 7, 7), (2, 32, 1, 1), (1, 1, 1, 1)], ids=str)
def test_trains_on_small_maps_and_batches(name: str, shape: tuple[int, ...]) -> None:
    layer = layer_of(name, shape[1]).train()
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    assert y.shape == x.shape and y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    if shape[0] * shape[2] * shape[3] == 1:  # one value per channel: the running statistics stay
        for key, value in layer.state_dict().items():
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@every_attention
@pytest.mark.parametrize(
    'dtype, std, rtol', [(torch.float16, 8, 4e-3), (torch.float16, 300, 4e-3), (torch.bfloat16, 8, 3e-2)]
)
def test_half_precision(name: str, dtype: torch.dtype, std: float, rtol: float) -> None:
    layer = layer_of(name, 32).to(dtype).eval()
    x = (std * torch.randn(2, 32, 28, 28)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    y = layer(x)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    expected = REFERENCE[name](x.double(), state_of(layer))
    error = (y.double() - expected).norm() / expected.norm()  # where a gate crosses 1/2 a few values may be farther off
    assert error <= rtol


@every_attention
def test_keeps_device_and_dtype(name: str) -> None:
    row = ATTENTION[name]
    layer = row.layer(32, **row.defaults, device='meta', dtype=torch.bfloat16)
    for key, tensor in layer.state_dict().items():
        assert tensor.is_meta and (tensor.dtype == torch.bfloat16 or key.endswith('num_batches_tracked')), key


@every_attention
def test_other_channels_are_refused(name: str) -> None:
    row = ATTENTION[name]
    with pytest.raises(ValueError, match=r'\(N, 16, H, W\), but got .*1, 4, 4'):
        row.layer(16, **row.defaults)(torch.randn(2, 1, 4, 4))
    with pytest.raises(ValueError, match='channels must be a positive integer, but got 0'):
        row.layer(0, **row.defaults)


@pytest.mark.parametrize(
    'name, options, message',
    [
        ('se', {'reduction': 0}, 'reduction must be a positive integer, but got 0'),
        ('eca', {'kernel_size': 4}, 'kernel_size must be odd, but got 4'),
        ('cbam', {'kernel_size': 6}, 'kernel_size must be odd, but got 6'),
        (
            'bam',
            {'combine': 'mean'},
            "combine of BAM must be one of sum, product, max, sum_of_sigmoids, but got 'mean'",
        ),
        ('bam', {'branches': 'none'}, "branches of BAM must be one of both, channel, spatial, but got 'none'"),
        ('bam', {'dilation': 0}, 'dilation must be a positive integer, but got 0'),
        ('eca', {'layers': 0}, 'layers must be a positive integer, but got 0'),
        ('eca', {'kernel_size': 0}, 'kernel_size must be a positive integer, but got 0'),
        ('eca', {'gamma': 0}, 'gamma must be a positive number, but got 0'),
        ('se', {'reduction': 2.0}, 'reduction must be a positive integer, but got 2.0'),
        ('gc', {'reduction': -1}, 'reduction must be a positive integer, but got -1'),
        ('simam', {'e_lambda': 0}, 'e_lambda must be a positive number, but got 0'),
        ('simam', {'e_lambda': '1e-4'}, "must be a positive number, but got '1e-4' .YAML reads 1e-4 as a text"),
        ('simam', {'e_lambda': float('nan')}, 'e_lambda must be a positive number, but got nan'),
        ('bam', {'norm': 'start'}, "norm of BAM must be one of end, inner, but got 'start'"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ATTENTION[name].layer(32, **options)


def test_a_whole_lambda_can_be_scripted() -> None:
    scripted, layer = torch.jit.script(ATTENTION['simam'].layer(4, e_lambda=1)), layer_of('simam', 4, e_lambda=1.0)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(scripted(x), layer(x))


@pytest.mark.parametrize('channels, k', [(4, 1), (16, 3), (96, 3), (128, 5), (1024, 5), (2048, 7)])
def test_eca_kernel_size(channels: int, k: int) -> None:
    assert adaptive_kernel_size(channels) == ECA(channels).conv.kernel_size[0] == k


def test_eca_takes_the_kernel_size_of_a_checkpoint() -> None:
    source, target = layer_of('eca', 64, kernel_size=7), ECA(64)
    parameter = target.conv.weight
    target.load_state_dict(source.state_dict())
    x = torch.randn(2, 64, 5, 5)
    torch.testing.assert_close(target(x), source(x))
    assert target.conv.weight is parameter and parameter.shape == (1, 1, 7)
    again = ECA(64)
    again.load_state_dict(target.state_dict())
    torch.testing.assert_close(again(x), source(x))


def test_eca_keeps_its_kernel_size_once_it_has_a_gradient() -> None:
    """An optimizer's moments would have the old size: torch would say so at its next step only, and not why."""
    net = torch.nn.Sequential(ECA(64))
    optimizer = torch.optim.SGD(net.parameters(), lr=1, momentum=0.9)
    net.load_state_dict(net.state_dict())
    net(torch.randn(2, 64, 5, 5)).sum().backward()
    optimizer.step()
    before, other = copy.deepcopy(net.state_dict()), torch.nn.Sequential(ECA(64, kernel_size=7)).state_dict()
    with pytest.raises(RuntimeError, match=r'0\.conv has kernel size 3 and a gradient.* has 7: load before training'):
        net.load_state_dict(other)
    torch.testing.assert_close(net.state_dict(), before)
    optimizer.step()
    net.load_state_dict(before)  # of its own size: as always
    net.zero_grad()
    net.load_state_dict(other)
    assert net[0].conv.weight.shape == (1, 1, 7)


def test_gcs_least_hidden_width() -> None:
    """A layer norm makes a single value constant: the authors' layers of fewer than 32 channels do not learn."""
    layer = layer_of('gc', 16)
    layer.load_state_dict({k: torch.randn_like(v) for k, v in layer.state_dict().items()})
    assert layer.fc1.out_features == 2
    layer(torch.randn(4, 16, 5, 5)).square().mean().backward()
    assert all(p.grad.any() for name, p in layer.named_parameters() if name != 'conv_mask.bias')


def test_eca_refuses_an_even_kernel() -> None:
    with pytest.raises(RuntimeError, match='size mismatch for conv.weight'):
        ECA(64).load_state_dict({'conv.weight': torch.zeros(1, 1, 4)})


WITH_NORMS = ('cbam', 'srm', 'bam', 'bam_mul', 'bamc')


@pytest.mark.parametrize('name', WITH_NORMS)
def test_norms_may_be_frozen(name: str) -> None:
    """timm's freezing puts a FrozenBatchNorm2d in place of every batch norm."""
    layer = layer_of(name, 32).eval()
    x = torch.randn(2, 32, 5, 5)
    before = layer(x)
    freeze(layer)
    assert any(isinstance(m, FrozenBatchNormAct2d | FrozenBatchNorm2d) for m in layer.modules())
    torch.testing.assert_close(layer.train()(x), before)


@pytest.mark.parametrize('name', WITH_NORMS)
def test_norms_average_for_swa(name: str) -> None:
    """update_bn sets the momentum to None: the running mean is then that of all batches."""
    layer = layer_of(name, 16)
    norm = next(m for m in layer.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    torch.optim.swa_utils.update_bn([torch.randn(4, 16, 6, 6) for _ in range(3)], layer)
    torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(dim=0))
    assert norm.num_batches_tracked == 3 and norm.momentum is not None


@pytest.mark.parametrize('name', WITH_NORMS)
def test_norms_become_synchronised_ones(name: str) -> None:
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(layer_of(name, 16))
    norms = [m for m in layer.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert layer.train()(torch.randn(4, 16, 6, 6)).isfinite().all()


SIGMOID = torch.sigmoid
ABLATIONS = {  # BAM Table 1b, by its rows
    'channel': (dict(branches='channel'), lambda c, s: 1 + SIGMOID(c)),
    'spatial': (dict(branches='spatial'), lambda c, s: 1 + SIGMOID(s)),
    'max': (dict(combine='max'), lambda c, s: 1 + SIGMOID(torch.maximum(c, s))),
    'product': (dict(combine='product'), lambda c, s: 1 + SIGMOID(c * s)),
    'sigmoids': (dict(combine='sum_of_sigmoids'), lambda c, s: 1 + SIGMOID(c) + SIGMOID(s)),
    'no identity': (dict(identity=False), lambda c, s: SIGMOID(c + s)),
    'BAM': ({}, lambda c, s: 1 + SIGMOID(c + s)),
}


@pytest.mark.parametrize('row', ABLATIONS)
def test_bams_ablations(row: str) -> None:
    options, factor = ABLATIONS[row]
    whole = layer_of('bam', 32).double().eval()
    layer = ATTENTION['bam'].layer(32, **options).double().eval()
    state = whole.state_dict()
    layer.load_state_dict({k: state[k] for k in layer.state_dict()}, strict=True)
    x = torch.randn(2, 32, 6, 9, dtype=torch.float64)
    channel, spatial = bam_maps(x, state_of(whole), inner=False)
    torch.testing.assert_close(layer(x), x * factor(channel, spatial), rtol=1e-10, atol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch.jit.script is deprecated, timm's users script all the same
        torch.jit.script(layer)


@pytest.mark.parametrize('options, changed', [(dict(reduction=4), 'reduction'), (dict(dilation=2), 'dilation')])
def test_bams_sizes(options: dict[str, Any], changed: str) -> None:
    layer = ATTENTION['bam'].layer(64, **options)
    assert layer.channel.fc1.out_features == (16 if changed == 'reduction' else 4)
    assert layer.spatial.conv1.dilation == ((2, 2) if changed == 'dilation' else (4, 4))
    assert layer(torch.randn(2, 64, 9, 5)).shape == (2, 64, 9, 5)


def test_stacked_ecas() -> None:
    layer = ECA(64, layers=3, kernel_size=3)
    assert sum(p.numel() for p in layer.parameters()) == 9
    x = torch.randn(2, 64, 5, 5)
    y = x.mean((2, 3))[:, None]
    for weight in layer.parameters():
        y = torch.nn.functional.conv1d(y, weight, padding=1)
    torch.testing.assert_close(layer(x), x * y[:, 0, :, None, None].sigmoid())
