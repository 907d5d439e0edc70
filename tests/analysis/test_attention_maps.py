"""Attention maps: what the layers saw, gave and multiplied by."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.support.nets import SAMPLE, build
from timm_attn import analysis
from timm_attn.analysis.hooks import find_layers, hooked
from timm_attn.attach import attention_layers
from timm_attn.attention import GC
from timm_attn.ops import simam_weights


def test_maps_are_what_the_layers_saw() -> None:
    model = timm.create_model('cifar_resnet20_simam').eval()
    x = torch.randn(2, 3, 28, 28)
    maps = analysis.attention_maps(model, x)
    assert list(maps) == list(attention_layers(model))
    stem = model.act1(model.bn1(model.conv1(x)))
    block = model.layer1[0]
    seen = block.conv2(block.act1(block.bn1(block.conv1(stem))))
    torch.testing.assert_close(maps['layer1.0.conv_attn'], simam_weights(seen, 1e-4))
    assert maps['layer3.2.conv_attn'].shape == (2, 64, 7, 7)


@pytest.mark.parametrize('name', SAMPLE)
def test_the_factor_is_output_over_input(name: str) -> None:
    """GC's is its term, output minus input."""
    model = build(name)
    layers = attention_layers(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        seen[path] = x.clone(), y.clone()

    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    maps = analysis.attention_maps(model, images)
    with torch.no_grad(), hooked(layers, after=keep):
        model(images)
    assert list(maps) == list(seen) and maps
    varied = 0.0
    for path, (x, y) in seen.items():
        factor = maps[path].expand_as(x)
        if isinstance(layers[path], GC):
            torch.testing.assert_close(factor, y - x, rtol=0, atol=1e-6 * float(y.abs().max()))
        else:
            there = x.abs() > 1e-3
            assert there.any()
            torch.testing.assert_close(factor[there], (y / x)[there], rtol=0, atol=1e-6)
        varied = max(varied, float(factor.std()))
    assert varied > 1e-3  # a constant would prove little


@pytest.mark.parametrize('name', ['cifar_resnet20_bam', 'cifar_resnet20_bam_mul', 'cifar_resnet20_cbam'])
def test_the_branches_make_the_factor(name: str) -> None:
    model = build(name)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    factors = analysis.attention_maps(model, images)
    branches = analysis.branch_maps(model, images)
    assert list(branches) == list(factors)
    joined: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        'cifar_resnet20_bam': lambda channel, spatial: 1 + (channel + spatial).sigmoid(),
        'cifar_resnet20_bam_mul': lambda channel, spatial: 1 + (channel * spatial).sigmoid(),
        'cifar_resnet20_cbam': lambda channel, spatial: channel * spatial,
    }
    for path, factor in factors.items():
        channel, spatial = branches[path]['channel'], branches[path]['spatial']
        n, c, h, w = factor.shape
        assert channel.shape == (n, c, 1, 1) and spatial.shape == (n, 1, h, w)
        torch.testing.assert_close(joined[name](channel, spatial), factor)


def test_a_branch_that_a_layer_lacks_is_left_out() -> None:
    model = timm.create_model('cifar_resnet20_bam', attn_kwargs=dict(branches='spatial'))
    branches = analysis.branch_maps(model, torch.randn(1, 3, 32, 32))
    assert all(list(of_layer) == ['spatial'] for of_layer in branches.values())
    with pytest.raises(ValueError, match=r'CifarResNet has no attention layer with two branches \(BAM or CBAM\)'):
        analysis.branch_maps(timm.create_model('cifar_resnet20_se'), torch.randn(1, 3, 32, 32))


def test_maps_and_profiles_of_a_factor() -> None:
    factor = torch.arange(24.0).view(1, 2, 3, 4)
    assert analysis.spatial_map(factor)[0, 0].tolist() == [6, 7, 8, 9]
    assert analysis.channel_profile(factor).tolist() == [[5.5, 17.5]]
    resized = analysis.resized(torch.tensor([[[0.0, 4.0], [0.0, 4.0]]]), (4, 4))
    assert resized.shape == (1, 4, 4) and resized[0, 0].tolist() == [0, 1, 3, 4]


def test_an_unknown_layer() -> None:
    model = timm.create_model('cifar_resnet20')
    everything = ', '.join(path for path, _ in model.named_modules() if path)
    with pytest.raises(ValueError) as error:
        find_layers(model, ['layer1', 'layer9'])
    assert str(error.value) == f"CifarResNet has no layer 'layer9'; its layers are {everything}."


def test_maps_do_not_depend_on_the_mode() -> None:
    model = build('cifar_resnet20_bam')
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = analysis.attention_maps(model, images)
    in_training = analysis.attention_maps(copy.deepcopy(model).train(), images)
    for path, factor in expected.items():
        assert torch.equal(factor, in_training[path])
