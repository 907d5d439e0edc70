"""Attention maps and hooks."""

import pytest
import timm
import torch

from timm_attn.analysis import attention_maps
from timm_attn.analysis.hooks import record
from timm_attn.attach import attention_layers
from timm_attn.ops import simam_weights


def test_maps_are_what_the_layers_saw() -> None:
    model = timm.create_model('cifar_resnet20_simam').eval()
    x = torch.randn(2, 3, 28, 28)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    maps = attention_maps(model, x)
    assert list(maps) == list(attention_layers(model))
    stem = model.act1(model.bn1(model.conv1(x)))
    block = model.layer1[0]
    seen = block.conv2(block.act1(block.bn1(block.conv1(stem))))
    torch.testing.assert_close(maps['layer1.0.conv_attn'], simam_weights(seen, 1e-4))
    assert maps['layer3.2.conv_attn'].shape == (2, 64, 7, 7)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_hooks_are_gone_after_an_exception() -> None:
    model = timm.create_model('cifar_resnet20_se')
    layers = attention_layers(model)
    with pytest.raises(ZeroDivisionError), record(layers, lambda layer, x: 1 / 0):
        model(torch.randn(1, 3, 28, 28))
    assert not any(layer._forward_pre_hooks for layer in layers.values())


def test_a_model_without_attention() -> None:
    with pytest.raises(ValueError, match='CifarResNet has no attention layers'):
        attention_maps(timm.create_model('cifar_resnet20'), torch.randn(1, 3, 28, 28))
