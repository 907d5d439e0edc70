"""The model name with_attention: any backbone with attention, rebuilt by timm's own ways."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

import timm_attn
from tests.support.images import assert_same_weights, interrupted, short, write_folders
from timm_attn.attach import attention_layers, placements
from timm_attn.reports.net import load_net
from timm_attn.training.runner import train
from timm_attn.weights.metadata import model_metadata

NAME = 'with_attention'
CALLS: list[dict[str, Any]] = [
    {},
    dict(backbone='test_convnext', attention='srm', at='stages', num_classes=7, in_chans=1),
    dict(backbone='regnety_002', attention='simam', replace=True, attn_kwargs=dict(e_lambda=0.5)),
    dict(backbone='test_mambaout', at=['stages.*.blocks.0.conv'], start='identity', drop_path_rate=0.1),
    dict(backbone='resnet10t', attention='bam', stages=['layer1', 'layer2']),
]


def image(model: Any, side: int = 64) -> torch.Tensor:
    return torch.randn(1, model.in_chans, side, side)


@pytest.mark.parametrize('call', CALLS, ids=[call.get('backbone', 'default') for call in CALLS])
def test_a_saved_net_is_rebuilt(call: dict[str, Any], tmp_path: Path) -> None:
    model = timm.create_model(NAME, **call).eval()
    save_for_hf(model, tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['architecture'] == NAME
    assert model_metadata(config['model_args'], 'config.json') == config['model_args']  # all of them are allowed
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    x = image(model)
    assert torch.equal(again(x), model(x))
    layers, before = ([row[:3] for row in placements(net) if row.how != 'scaled'] for net in (again, model))
    assert layers == before != []  # what an identity start has scaled is in the weights


def test_the_cfg_is_the_backbones() -> None:
    plain, model = timm.create_model('convnext_atto'), timm.create_model(NAME, backbone='convnext_atto', at='stages')
    differ = {k for k, v in plain.pretrained_cfg.items() if model.pretrained_cfg.get(k) != v}
    assert model.pretrained_cfg['architecture'] == NAME
    assert differ <= {'architecture', 'hf_hub_id', 'tag', 'url', 'origin_url', 'license', 'paper_ids', 'notes'}
    # as timm's scripts call it: with the cfg of the name, which is not the backbone's
    other = timm.create_model(
        NAME, pretrained_cfg=timm.get_pretrained_cfg(NAME).to_dict(), backbone='convnext_atto', at='stages'
    )
    assert other.pretrained_cfg == model.pretrained_cfg
    assert timm.create_model(NAME, pretrained_cfg_overlay=dict(crop_pct=0.5)).pretrained_cfg['crop_pct'] == 0.5


def test_pretrained_is_the_backbones() -> None:
    plain = timm.create_model('cifar_resnet20', pretrained=True).eval()
    call = dict(backbone='cifar_resnet20', attention='cbam')
    model = timm.create_model(NAME, pretrained=True, start='identity', **call).eval()
    x = image(plain, 32)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-5)
    own = model.state_dict()
    loaded = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=dict(state_dict=own), **call).eval()
    assert torch.equal(loaded(x), model(x))
    fresh = timm.create_model(NAME, pretrained=True, **call)
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in plain.state_dict().items())


def test_features() -> None:
    net = timm.create_model(NAME, features_only=True, backbone='test_convnext', at='stages')
    x = torch.randn(1, 3, 64, 64)
    assert [f.shape[1] for f in net(x)] == net.feature_info.channels() == [24, 32, 48, 64]
    last = timm.create_model(NAME, features_only=True, backbone='resnet10t', out_indices=(2, 4))
    assert [f.shape[1] for f in last(x)] == [128, 512] and len(attention_layers(last)) == 4


def test_the_tools_take_such_nets() -> None:
    model = timm.create_model(NAME, backbone='regnetx_002', attention='se').eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(timm_attn.fuse(model)(x), model(x), rtol=1e-3, atol=1e-4)
    maps = timm_attn.analysis.attention_maps(model, x)
    assert len(maps) == len(attention_layers(model)) == 13
    groups = timm_attn.attention_param_groups(model, 0.1)
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))
    assert model.reset_classifier(3) is None and model(x).shape == (2, 3)


@pytest.mark.parametrize(
    'call, message',
    [
        (dict(backbone='hf-hub:timm/resnet18.a1_in1k'), 'backbone must be a model that timm .* registers'),
        (dict(backbone='local-dir:/tmp'), 'backbone must be a model'),
        (dict(backbone=NAME), 'backbone must be a model'),
        (dict(backbone='resnet19'), "such as convnext_tiny, but is 'resnet19'"),
        (dict(attention='sam'), "Unknown attention 'sam'"),
        (dict(backbone='seresnet18'), 'already holds SEModule'),
    ],
)
def test_bad_calls(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model(NAME, **call)


@pytest.mark.parametrize(
    'said',
    [
        dict(backbone='hf-hub:someone/net'),
        dict(backbone='../net'),
        dict(backbone=['resnet18']),
        dict(at=[['layer1']]),
        dict(at=dict(path='layer1')),
        dict(replace='yes'),
        dict(attention=1),
    ],
)
def test_what_a_file_may_not_say(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='config.json has'):
        model_metadata(said, 'config.json')


def test_a_file_that_describes_no_net(tmp_path: Path) -> None:
    save_for_hf(timm.create_model(NAME, backbone='test_convnext', at='stages'), tmp_path)
    config = tmp_path / 'config.json'
    said = json.loads(config.read_text())
    for args, message in (
        (dict(at='nowhere.*'), 'does not describe a net'),
        (dict(backbone='convnext_xlarge'), 'more than the'),
    ):
        config.write_text(json.dumps({**said, 'model_args': {**said['model_args'], **args}}))
        with pytest.raises(ValueError, match=message):
            timm.create_model(f'local-dir:{tmp_path}', pretrained=True)


def test_the_runner_trains_it_and_its_files_say_what_it_is(tmp_path: Path) -> None:
    folders = write_folders(tmp_path / 'images', 40, classes=3)
    kwargs = dict(backbone='test_convnext', attention='cbam', at='stages')
    recipe = short(epochs=2, model_kwargs=kwargs, input_size=[3, 32, 32])
    train(recipe, NAME, folders, tmp_path / 'run')
    net = load_net(None, tmp_path / 'run' / 'last.safetensors', device='cpu')
    assert len(attention_layers(net.model)) == 4 and net.model.num_classes == 3
    interrupted(recipe, NAME, folders, tmp_path / 'broken')
    train(recipe, NAME, folders, tmp_path / 'broken', resume=True)
    assert_same_weights(tmp_path / 'run', tmp_path / 'broken')
