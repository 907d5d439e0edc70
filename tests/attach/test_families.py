"""attach in timm's families: what worked with the plain net works with attention in it."""

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.testing import assert_close

import timm_attn
from tests.support.timm_extra import build
from timm_attn.attach import attention_layers, placements

# Nets, their options, and the layers that they get by the table (None: it has no row for them) and at their stages
FAMILIES: dict[str, tuple[dict[str, Any], int | None, int]] = {
    'cs3darknet_focus_s': ({}, 9, 4),
    'densenet121': (dict(block_config=(2, 2, 2, 2)), None, 4),
    'dla46x_c': ({}, 12, 4),
    'edgenext_xx_small': (dict(depths=(1, 1, 1, 1)), 1, 4),
    'efficientnet_lite0': ({}, 16, 5),
    'inception_next_atto': (dict(depths=(1, 1, 1, 1)), 4, 4),
    'mobilenetv4_conv_small_035': ({}, 17, 4),
    'nf_resnet26': (dict(depths=(1, 1, 1, 1)), 4, 4),
    'poolformer_s12': ({}, 12, 4),
    'regnetx_002': ({}, 13, 4),
    'repvgg_a0': ({}, 22, 4),
    'resnetv2_18': (dict(layers=(1, 1, 1, 1)), 4, 4),
    'starnet_s050': (dict(depths=(1, 1, 1, 1)), 4, 4),
    'swin_tiny_patch4_window7_224': (dict(depths=(1, 1, 1, 1)), None, 4),  # (N, H, W, C)
    'test_convnext': ({}, 9, 4),
    'test_mambaout': ({}, 6, 4),  # (N, H, W, C)
}
CASES = [
    (name, at) for name, (_, *counts) in FAMILIES.items() for at, n in zip((None, 'stages'), counts, strict=True) if n
]
every_case = pytest.mark.parametrize('name, at', CASES, ids=[f'{name}-{at or "table"}' for name, at in CASES])


def pair(name: str, at: str | None) -> tuple[Any, Any]:
    """The plain net, and its copy with attention, both in evaluation."""
    torch.manual_seed(0)
    kwargs = FAMILIES[name][0]
    plain = build(name, **kwargs) if 'swin' not in name else timm.create_model(name, **kwargs).eval()
    return plain, timm_attn.attach(copy.deepcopy(plain), 'eca', at=at)


def images(plain: Any, side: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, *(plain.pretrained_cfg['input_size'][1:] if 'Swin' in repr(type(plain)) else (side, side)))


@every_case
def test_places_and_weights(name: str, at: str | None) -> None:
    plain, model = pair(name, at)
    layers = attention_layers(model)
    assert len(layers) == FAMILIES[name][1 if at is None else 2]
    rows = [row for row in placements(model) if row.how != 'skipped']
    assert {row.path: row.channels for row in rows} == {path: layer.channels for path, layer in layers.items()}
    for side in (64, 96):
        x = images(plain, side)
        outputs = model(x)
        assert outputs.shape == plain(x).shape and outputs.isfinite().all()
    assert not torch.allclose(outputs, plain(x))  # the attention acts
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), outputs) and placements(twin) == placements(model)
    twin.load_state_dict(model.state_dict(), strict=True)
    missing, unexpected = twin.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing and all(key.startswith(tuple(f'{path}.' for path in layers)) for key in missing)
    for layer in attention_layers(twin).values():
        layer.forward = lambda x: x  # type: ignore[method-assign]
    assert_close(twin(x), plain(x), rtol=1e-4, atol=1e-5)  # the plain net is all there


def can_checkpoint(model: Any) -> bool:
    try:
        model.set_grad_checkpointing()
    except AssertionError:  # timm's "not supported"
        return False
    return True


@every_case
def test_features_gradients_and_checkpointing(name: str, at: str | None) -> None:
    plain, model = pair(name, at)
    x = images(plain)
    found = [[t.shape for t in net.forward_intermediates(x, intermediates_only=True)] for net in (plain, model)]
    assert found[0] == found[1]
    outputs, gradients = [], []
    for checkpointing in (False, True) if can_checkpoint(plain) else (False, False):
        if checkpointing:
            model.set_grad_checkpointing()
        model.zero_grad()
        outputs.append(model(x))
        outputs[-1].square().mean().backward()
        gradients.append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
    assert_close(outputs[1], outputs[0])
    assert_close(gradients[1], gradients[0])
    layers = {f'{path}.{key}' for path, layer in attention_layers(model).items() for key, _ in layer.named_parameters()}
    assert layers and all(gradients[0][key].any() for key in layers)


@pytest.mark.parametrize('name', ['regnetx_002', 'test_convnext', 'test_mambaout', 'mobilenetv4_conv_small_035'])
def test_layers_keep_their_groups_of_learning_rates(name: str) -> None:
    """Those of timm's layer decay, by the paths that a net's group_matcher knows; an appended layer is one more."""
    plain, model = pair(name, 'stages')
    theirs, ours = (
        {
            key.replace('.module', ''): n
            for n, keys in group_parameters(net, net.group_matcher()).items()
            for key in keys
        }
        for net in (plain, model)
    )
    groups = sorted({(n, ours[key]) for key, n in theirs.items()})
    assert len(groups) == len(set(theirs.values())) and [n for _, n in groups] == sorted({n for _, n in groups})


def test_sync_batch_norm_keeps_the_attention() -> None:
    """Also of a norm that is wrapped."""
    model = timm.create_model('dla46x_c').eval()
    timm_attn.attach(model, 'eca')
    twin = timm.layers.convert_sync_batchnorm(copy.deepcopy(model))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in twin.modules())
    x = torch.randn(2, 3, 64, 64)
    assert_close(twin(x), model(x))
    assert len(attention_layers(twin)) == len(attention_layers(model)) == 12
