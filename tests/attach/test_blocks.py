"""Blocks use the fused epilogue at inference, with the same outputs, and single layers in training and under hooks."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tests.support.timm_extra import build, images
from timm_attn import ATTENTION, attach, fuse, zoo
from timm_attn.attention import Attention, AttentionLayer

# a net of every kind of block
STEMS = ('resnet18', 'resnet50', 'mobilenetv2', 'cifar_resnet20', 'cifar_resnet110', 'cifar_preresnet20')
STEMS += ('cifar_preresnet110', 'cifar_mobilenetv2')
KEYS = [key for key, row in ATTENTION.items() if row.site == 'block']


def calls_of_epilogue(monkeypatch: pytest.MonkeyPatch, cls: type[AttentionLayer]) -> list[Any]:
    seen: list[Any] = []
    own = cls.epilogue
    monkeypatch.setattr(cls, 'epilogue', lambda self, *args: seen.append(self) or own(self, *args))
    return seen


@pytest.mark.parametrize('stem', STEMS)
def test_the_epilogue_is_the_layers(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KEYS[STEMS.index(stem) % len(KEYS)]
    model = build(f'{stem}_{key}').double()
    layers = [m for m in model.modules() if isinstance(m, AttentionLayer)]
    x = images(model).double()
    before, expected = x.clone(), model(x)
    seen = calls_of_epilogue(monkeypatch, type(layers[0]))
    for mode in (torch.no_grad, torch.inference_mode):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            seen.clear()
            with mode():
                outputs = model(x.contiguous(memory_format=memory_format))
            assert ((outputs - expected).norm() / expected.norm()) < 1e-11
            assert len(seen) == len(layers)
    assert torch.equal(x, before)


def test_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, under hooks of a layer or of all modules, and with a replaced forward."""
    model = build('cifar_resnet20_se')
    x = images(model)
    seen = calls_of_epilogue(monkeypatch, se := type(model.layer1[0].block_attn))
    watched: list[Any] = []

    def watch(module: Any, *args: Any) -> None:
        watched.append(module)

    with torch.no_grad():
        model(x)
        assert len(seen) == 9
        handle = model.layer1[0].block_attn.register_forward_hook(watch)
        model(x)
        assert len(seen) == 9 + 8 and watched == [model.layer1[0].block_attn]
        handle.remove()
        handle = model.layer1[1].act2.register_forward_pre_hook(watch)
        model(x)
        assert len(seen) == 9 + 8 + 8 and watched[1:] == [model.layer1[1].act2]
        handle.remove()
        outputs: list[Tensor] = []
        handle = model.layer1[2].bn2.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        model(x)
        assert len(seen) == 25 + 8 and (outputs[0] < 0).any()  # not overwritten
        handle.remove()
        seen.clear()
        handle = nn.modules.module.register_module_forward_hook(watch)
        model(x)
        assert not seen and sum(isinstance(m, se) for m in watched) == 1 + 9
        handle.remove()
        model.layer2[0].block_attn.forward = lambda x: x
        model(x)
        assert len(seen) == 8
        model.train()
        model(x)
    model.eval()(x)
    assert len(seen) == 8


@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('mobilenetv2_se', 'blocks.1.1.bn3.act'),
        ('resnet18_gc', 'layer1.0.se.conv_mask'),
        ('cifar_preresnet20_se', 'layer1.0.conv_attn'),
    ],
)
def test_what_a_hook_has_seen_stays(name: str, layer: str) -> None:
    """Also inside a norm or an attention, and behind the attention that makes a block's last map."""
    model = build(name)
    if layer.endswith('conv_attn'):
        attach(model, 'simam')
    kept: list[tuple[Tensor, Tensor]] = []
    for watched in (model, model.get_submodule(layer)):
        watched.register_forward_hook(lambda m, inputs, y: kept.extend((t, t.clone()) for t in (inputs[0], y)))
    with torch.no_grad():
        model(images(model))
    assert len(kept) == 4 and all(torch.equal(now, then) for now, then in kept)


@pytest.mark.parametrize('stem', [stem for stem in STEMS if 'preresnet' not in stem])  # those have no norm there
def test_what_a_hook_on_a_convolution_has_seen_stays_when_its_norm_is_gone(stem: str) -> None:
    """torch's own folding leaves an identity in the norm's place, whose map is the convolution's."""
    model = build(f'{stem}_se')
    kept: list[tuple[Tensor, Tensor]] = []
    for block in [m for m in model.modules() if hasattr(m, 'slots')]:
        source = next(slot.source for slot in block.slots if slot.site == 'block')
        conv = block.get_submodule(source)
        norm = list(block._modules)[list(block._modules).index(source) + 1]
        block.set_submodule(source, conv := fuse_conv_bn_eval(conv, block.get_submodule(norm)))
        block.set_submodule(norm, nn.Identity())
        conv.register_forward_hook(lambda m, inputs, y: kept.append((y, y.clone())))
    with torch.no_grad():
        model(images(model))
    assert kept and all(torch.equal(now, then) for now, then in kept)


def test_other_activations() -> None:
    model = build('resnet18_eca', act_layer=nn.SiLU).double()
    x = images(model).double()
    expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


class Shift(AttentionLayer):
    """An attention that overrides forward, not epilogue."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def test_an_attention_that_knows_nothing_of_it() -> None:
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
