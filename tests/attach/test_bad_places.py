"""Nets and places that cannot have an attention: one sentence, and the net is left alone."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

import timm_attn
from timm_attn.attach import attention_layers, placements


class TwiceRun(nn.Module):
    """A convolution that runs two times, a branch that gives tokens, and a layer that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.tokens = nn.Flatten(2)
        self.idle = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tokens(self.conv(self.conv(x))).mean(2)


def small(**kwargs: Any) -> Any:
    return timm.create_model('resnet10t', **kwargs)


def quantised() -> Any:
    net = small()
    net.fc = torch.ao.nn.quantized.dynamic.Linear(512, 10)
    return net


@torch.inference_mode()
def untrainable() -> Any:
    return small()


BAD: list[tuple[Callable[[], Any], dict[str, Any], str]] = [
    (lambda: timm.create_model('test_vit'), {}, r'blocks.0 gives tokens of shape .*choose a ConvNet, such as convnext'),
    (lambda: timm.create_model('test_vit'), {'at': 'stages'}, 'gives tokens of shape .*choose a ConvNet'),
    (lambda: timm.create_model('test_vit_relpos'), {'at': 'stages'}, 'blocks.0 gives tokens'),  # and takes two inputs
    (small, {'at': 'layer9.*'}, r"no module at 'layer9.\*'; the closest are layer"),
    (small, {'at': nn.Conv3d}, 'no module of class Conv3d'),
    (small, {'at': 'fc'}, r'fc gives a tensor of shape \(1, 1000\), no map'),
    (small, {'at': 'layer1', 'stages': ('layer2',)}, "stages are places already, at='layer1' must be left out"),
    (small, {'at': 'layer1.0.conv1', 'replace': True}, 'layer1.0.conv1 is Conv2d, no attention that could be replaced'),
    (small, {'at': 'stages', 'replace': True}, 'needs the old layers'),
    (small, {'replace': True}, 'no attention that ECA could replace'),
    (small, {'start': 'warm'}, "start must be None or 'identity', but got 'warm'"),
    (TwiceRun, {'at': 'conv'}, 'conv runs 2 times'),
    (TwiceRun, {'at': 'tokens'}, 'tokens gives tokens'),
    (TwiceRun, {'at': 'idle'}, 'idle does not run'),
    (lambda: timm.create_model('seresnet18'), {}, "slot 'se' of BasicBlock already holds SEModule. replace=True"),
    (lambda: timm.create_model('regnety_002'), {}, "slot 'se' of Bottleneck already holds SEModule"),
    (lambda: timm.create_model('efficientnet_b0'), {}, 'already holds SqueezeExcite'),
    (lambda: timm.create_model('efficientnet_b0'), {'at': '*.se'}, 'already holds SqueezeExcite'),
    (lambda: timm_attn.attach(small(), 'eca'), {}, 'layer1.0.se already holds ECA: replace=True'),
    (lambda: timm_attn.attach(small(), 'eca', at='stages'), {'at': 'stages'}, 'already holds ECA'),
    (lambda: timm_attn.attach(timm.create_model('test_convnext'), 'se', at='stages'), {'at': 'stages'}, 'holds SE'),
    (lambda: timm_attn.attach(timm.create_model('regnetx_002'), 'se', at='stages'), {'at': 'stages'}, 'holds Attended'),
    (lambda: timm_attn.attach(timm.create_model('test_mambaout'), 'se', at='stages'), {'at': 'stages'}, 'Channels'),
    (lambda: timm_attn.attach(small(), 'eca', at='layer1.0'), {'at': 'layer1.0'}, 'already holds Attended'),
    (lambda: torch.jit.script(small()), {}, 'is scripted'),
    (lambda: torch.compile(small()), {}, 'is compiled'),
    (lambda: torch.fx.symbolic_trace(small()), {}, 'is fused or traced'),
    (lambda: timm_attn.fuse(timm.create_model('resnet18_se').eval()), {}, 'is fused or traced'),
    (lambda: small(device='meta'), {'start': 'identity'}, 'is on the meta device and has no values'),
    (quantised, {}, r'is quantised \(fc\)'),
    (untrainable, {'start': 'identity'}, r'was made under torch.inference_mode\(\): its weights cannot be scaled'),
    (lambda: nn.DataParallel(small()), {}, 'is distributed'),
    (lambda: 'resnet18', {}, 'goes into an nn.Module, but got str'),
]


@pytest.mark.parametrize('build, kwargs, message', BAD, ids=[f'{i}' for i in range(len(BAD))])
def test_refused(build: Callable[[], Any], kwargs: dict[str, Any], message: str) -> None:
    model = build()
    before = repr(model)
    with pytest.raises(ValueError, match=message):
        timm_attn.attach(model, 'eca', **kwargs)
    assert repr(model) == before
    if isinstance(model, nn.Module):
        assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize('at, what', [(3, '3'), (['layer1', None], 'None'), (nn.ReLU(), 'an instance of ReLU')])
def test_places_that_are_neither_paths_nor_classes(at: Any, what: str) -> None:
    with pytest.raises(TypeError, match=f'at must be globs of paths or classes, .* but has {what}'):
        timm_attn.attach(small(), 'eca', at=at)


def test_a_sharded_net_is_refused() -> None:
    from torch.distributed.tensor import DTensor  # as fully_shard leaves it

    class Shard(nn.Parameter):
        device_mesh = 'cpu'

    net = small()
    net.fc.weight = Shard(net.fc.weight.data)
    assert hasattr(DTensor, 'device_mesh')
    with pytest.raises(ValueError, match=r'is sharded \(fc\)'):
        timm_attn.attach(net, 'eca')


def test_an_image_that_the_net_cannot_take() -> None:
    with pytest.raises(
        ValueError, match=r'does not run on an image of shape \(1, 5, 32, 32\), pass another as example'
    ):
        timm_attn.attach(timm.create_model('test_convnext'), 'eca', example=torch.zeros(1, 5, 32, 32))


def test_frozen_and_meta_nets() -> None:
    net = timm.create_model('test_convnext').requires_grad_(False).double()
    net.stages[0].eval()
    timm_attn.attach(net, 'eca', at=['stages.0', 'stages.1'])
    layers = attention_layers(net)
    assert [p.requires_grad for p in net.parameters()].count(True) == len(layers) == 2
    assert [layer.training for layer in layers.values()] == [False, True]
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    with torch.device('meta'):
        empty = timm_attn.attach(timm.create_model('test_convnext'), 'se', at='stages')
    assert all(p.is_meta for p in empty.parameters()) and len(attention_layers(empty)) == 4


def test_what_is_left_out_is_told() -> None:
    net = timm_attn.attach(timm.create_model('mobilevit_xxs'), 'eca')
    left = {row.path: row.note for row in placements(net) if row.how == 'skipped'}
    assert left['stages.2.1'] == 'no row for MobileVitBlock in the table of places'
    net = timm_attn.attach(timm.create_model('resnet10t'), 'eca', at='stages')
    assert [tuple(row)[:4] for row in placements(net) if row.how == 'skipped'] == [
        ('act1', 'skipped', None, 'no block in it')
    ]
    assert placements(timm.create_model('resnet10t')) == []
