"""Blocks with attention: inference, hooks, tracing."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.support.timm_extra import build, images
from timm_attn import ATTENTION, attach, fuse, zoo
from timm_attn.attention import Attention, AttentionLayer

# a net of every kind of block
STEMS = ('resnet18', 'resnet50', 'mobilenetv2', 'cifar_resnet20', 'cifar_resnet110', 'cifar_preresnet20')
STEMS += ('cifar_preresnet110', 'cifar_mobilenetv2')
KEYS = [key for key, row in ATTENTION.items() if row.site == 'block']


@pytest.mark.parametrize('stem', STEMS)
def test_inference(stem: str) -> None:
    """The same outputs without gradients, in both memory formats, and the images stay."""
    key = KEYS[STEMS.index(stem) % len(KEYS)]
    model = build(f'{stem}_{key}').double()
    x = images(model).double()
    before, expected = x.clone(), model(x)
    for mode in (torch.no_grad, torch.inference_mode):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            with mode():
                outputs = model(x.contiguous(memory_format=memory_format))
            assert ((outputs - expected).norm() / expected.norm()) < 1e-11
    assert torch.equal(x, before)


def test_other_activations() -> None:
    model = build('resnet18_eca', act_layer=nn.SiLU).double()
    x = images(model).double()
    expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


class Shift(AttentionLayer):
    """An attention that overrides forward."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def test_an_attention_of_another_kind() -> None:
    row = Attention(lambda channels, device=None, dtype=None: Shift(channels), 'block', 'Shift', 'none')
    model = timm.create_model('resnet18').eval()
    attach(model, row)
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(fuse(model)(x), expected, rtol=1e-4, atol=1e-4)


def test_every_kind_of_block_is_here() -> None:
    """A backbone whose blocks have the site and are in no net above would not be tested."""
    kinds = {stem: {type(m).__name__ for m in build(f'{stem}_se').modules() if hasattr(m, 'slots')} for stem in STEMS}
    for stem, backbone in zoo.BACKBONES.items():
        if 'block' in backbone.sites:
            with torch.device('meta'):
                net = timm.create_model(f'{stem}_se')
            assert {type(m).__name__ for m in net.modules() if hasattr(m, 'slots')} <= set().union(*kinds.values())


@pytest.mark.parametrize('name, attr', [('resnet18_se', 'layer4.1'), ('mobilenetv2_cbam', 'blocks.1.1')])
def test_what_takes_the_place_of_drop_path_is_called(name: str, attr: str) -> None:
    """In evaluation a block passes over it only where it does nothing and nobody has hooked it."""
    model = timm.create_model(name, drop_path_rate=0.1).eval()
    block: Any = model.get_submodule(attr)
    seen: list[int] = []
    handle = block.drop_path.register_forward_hook(lambda *_: seen.append(1))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model(x)
        handle.remove()
        assert seen == [1]
        block.drop_path = nn.ReLU6()
        found = model(x)
    torch.testing.assert_close(found, model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['resnet18_se', 'mobilenetv2_gc', 'cifar_resnet20_cbam', 'cifar_preresnet20_srm'])
def test_blocks_can_be_traced(name: str) -> None:
    graph = torch.fx.symbolic_trace(timm.create_model(name).eval())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), graph(x.clone()))
