"""`from_` tags: every form in which timm and its scripts hand them over, sources, heads, channels, copies."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models import get_arch_pretrained_cfgs, save_for_hf
from torch import Tensor

from timm_attn import ATTENTION, BACKBONES, zoo
from timm_attn.attach import attention_layers
from timm_attn.from_tags import PREFIX

PLAIN = 'cifar_resnet20'
BLOCK = [f'{PLAIN}_{key}' for key, row in ATTENTION.items() if key != 'simam']
IMAGES = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def outputs(model: Any, images: Tensor = IMAGES) -> Tensor:
    result: Tensor = model.eval()(images)
    return result


@pytest.mark.parametrize('name', BLOCK)
def test_a_bundled_plain_net_starts_every_attention(name: str) -> None:
    plain = timm.create_model(PLAIN, pretrained=True)
    model = timm.create_model(f'{name}.from_fmnist', pretrained=True)
    expected = outputs(plain)
    assert (outputs(model) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (outputs(timm.create_model(name)) - expected).abs().max() > 0.1  # not by itself
    cfg: Any = model.pretrained_cfg
    assert cfg['tag'] == 'from_fmnist' and cfg['label_names'][0] == 't-shirt'
    assert (cfg['mean'], cfg['license']) == (plain.pretrained_cfg['mean'], plain.pretrained_cfg['license'])
