"""Attention modules for ConvNets as timm models: importing this package registers the zoo in timm's factory."""

import importlib
from typing import Any

from timm_attn import analysis, ops, with_attention, zoo
from timm_attn.attach import attach, placements
from timm_attn.attention import ATTENTION
from timm_attn.backbones import BACKBONES
from timm_attn.deploy.fuse import fuse
from timm_attn.param_groups import attention_param_groups
from timm_attn.warm_start import warm_start
from timm_attn.weights import convert_state_dict

__version__ = '0.2.0'
__all__ = [
    'ATTENTION',
    'BACKBONES',
    'analysis',
    'attach',
    'attention_param_groups',
    'convert_state_dict',
    'fuse',
    'ops',
    'placements',
    'warm_start',
]

zoo.register()
with_attention.register()


def __getattr__(name: str) -> Any:
    """`timm_attn.downstream`, whose detectors are imported only where they are used."""
    if name == 'downstream':
        return importlib.import_module('timm_attn.downstream')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
