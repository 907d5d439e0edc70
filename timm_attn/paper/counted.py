"""Counts our nets and layers for the papers' rows, on the meta device."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import timm
import torch
from torch import nn

from timm_attn.attention import ATTENTION
from timm_attn.backbones import BACKBONES
from timm_attn.downstream.detectors import faster_rcnn, mask_rcnn
from timm_attn.downstream.srresnet import srresnet
from timm_attn.downstream.ssd import ssd300
from timm_attn.downstream.stairnet import stairnet300
from timm_attn.downstream.upernet import upernet
from timm_attn.paper.counting import macs, params, thop_2019, thop_2020, thop_params

COUNTS: Mapping[str, Callable[[nn.Module, int], int]] = {
    'params': lambda model, size: params(model),
    'thop_params': lambda model, size: thop_params(model),
    'decoder_params': lambda model, size: params(model.get_submodule('decoder')),
    'macs': lambda model, size: macs(model, (3, size, size)),
    'thop_2019': lambda model, size: thop_2019(model, (3, size, size)),
    'thop_2020': lambda model, size: thop_2020(model, (3, size, size)),
}


@dataclass(frozen=True)
class CountedNet:
    """A registered model with the classes, image size and options of a table's row.

    Args:
        model: its name; or the backbone or the attention that another builder takes, where 'plain' is none.
        attn_kwargs: the items of the attention's options.
        change: a key of CHANGES: how the row's net differs from the registered model.
        builder: a key of BUILDERS.
    """

    model: str
    num_classes: int
    image_size: int
    attn_kwargs: tuple[tuple[str, Any], ...] = ()
    change: str | None = None
    builder: str = 'timm'


@cache
def count(net: CountedNet, quantity: str) -> int:
    """A quantity of COUNTS."""
    return COUNTS[quantity](build(net), net.image_size)


@lru_cache(maxsize=4)
def build(net: CountedNet) -> nn.Module:
    """The model on the meta device."""
    with torch.device('meta'):
        model = BUILDERS[net.builder](net)
    if net.change:
        CHANGES[net.change](model, net.model)
    return model


@cache
def layer_params(attention: str, channels: int) -> int:
    """SimAM Table 1: parameters of one layer."""
    row = ATTENTION[attention]
    return params(row.layer(channels, **row.defaults, device='meta'))


def _stride_first(model: Any, name: str) -> None:
    """BAM Table 4: a bottleneck's stride in its first 1x1 convolution; timm's nets have it in the 3x3."""
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride


def _extra_block(model: nn.Module, name: str) -> None:
    """BAM Table 1c: one more of the backbone's blocks at the end of every stage that BAM would close."""
    for path in BACKBONES[name].stages:
        stage: Any = model.get_submodule(path)
        stage.append(copy.deepcopy(stage[-1]))


CHANGES: Mapping[str, Callable[[nn.Module, str], None]] = {'stride_first': _stride_first, 'extra_block': _extra_block}


def _timm(net: CountedNet) -> nn.Module:
    options: dict[str, Any] = {'attn_kwargs': dict(net.attn_kwargs)} if net.attn_kwargs else {}
    return timm.create_model(net.model, num_classes=net.num_classes, device='meta', **options)


def _attention(net: CountedNet) -> str | None:
    return None if net.model == 'plain' else net.model


BUILDERS: Mapping[str, Callable[[CountedNet], nn.Module]] = {
    'timm': _timm,
    'faster_rcnn': lambda net: faster_rcnn(net.model, net.num_classes),
    'mask_rcnn': lambda net: mask_rcnn(net.model, net.num_classes),
    'ssd300': lambda net: ssd300(net.num_classes),
    'stairnet300': lambda net: stairnet300(net.num_classes, _attention(net)),
    'srresnet': lambda net: srresnet(_attention(net)),
    'upernet': lambda net: upernet(net.model, net.num_classes, width=512),
    'upernet_lite': lambda net: upernet(net.model, net.num_classes),
}
