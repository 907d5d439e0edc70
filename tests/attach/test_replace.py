"""A new attention in the place of the net's own."""

from typing import Any

import pytest
import timm
import torch

import timm_attn
from timm_attn.attach import attention_layers, placements
from timm_attn.attach.places import PLACES
from timm_attn.attach.spot import is_attention

# Nets with attention of their own, the name that it has in their keys, and how many blocks have it
NETS = {
    'ecaresnet50t': ('.se.', 16),
    'efficientnet_b0': ('.se.', 16),
    'ese_vovnet19b_slim_dw': ('.attn.', 4),
    'mobilenetv3_small_050': ('.se.', 9),
    'regnety_002': ('.se.', 13),
    'seresnet18': ('.se.', 8),
}


@pytest.mark.parametrize('name', NETS)
def test_the_new_layers_are_there_and_run_and_the_old_are_gone(name: str) -> None:
    slot, count = NETS[name]
    model = timm.create_model(name).eval()
    before = model.state_dict()
    x = torch.randn(1, 3, 64, 64)
    timm_attn.attach(model, 'cbam', replace=True)
    layers = attention_layers(model)
    assert len(layers) == count == sum(row.how == 'replaced' for row in placements(model))
    inside = tuple(f'{path}.' for path in layers)
    old = [path for path, m in model.named_modules() if is_attention(m) and path not in layers]
    assert not [path for path in old if not path.startswith(inside)]
    after = model.state_dict()
    assert [k for k in before if slot not in k] == [k for k in after if not k.startswith(inside)]
    assert all(torch.equal(after[key], before[key]) for key in after.keys() & before.keys() if slot not in key)
    seen: list[Any] = []
    for layer in layers.values():
        layer.register_forward_hook(lambda m, inputs, output: seen.append(m))
    assert model(x).shape == (1, 1000)
    assert set(seen) == set(layers.values())


def test_one_by_its_path_and_ours_by_another() -> None:
    model = timm.create_model('seresnet18').eval()
    timm_attn.attach(model, 'eca', at='layer1.*.se', replace=True)
    assert list(attention_layers(model)) == ['layer1.0.se', 'layer1.1.se']
    timm_attn.attach(model, 'srm', replace=True)
    assert {type(layer).__name__ for layer in attention_layers(model).values()} == {'SRM'}
    assert len(attention_layers(model)) == 8
    model = timm_attn.attach(timm.create_model('resnet18_simam'), 'simam', replace=True, attn_kwargs=dict(e_lambda=0.5))
    assert {layer.e_lambda for layer in attention_layers(model).values()} == {0.5}


def test_every_row_of_the_table_is_a_class_of_timm() -> None:
    for name in PLACES:
        module, _, cls = name.partition('.')
        assert hasattr(__import__(f'timm.models.{module}', fromlist=[cls]), cls), name
