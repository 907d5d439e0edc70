"""The attention layers and their table. A new attention is a file here and its row in ATTENTION."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from timm_attn.attention.bam import BAM
from timm_attn.attention.base import AttentionLayer, attention_layers
from timm_attn.attention.cbam import CBAM
from timm_attn.attention.eca import ECA
from timm_attn.attention.gc import GC
from timm_attn.attention.se import SE
from timm_attn.attention.simam import SimAM
from timm_attn.attention.srm import SRM

Site = Literal['conv', 'block', 'stage']


@dataclass(frozen=True)
class Attention:
    """A row: what `{backbone}_{name}` puts where.

    Args:
        layer: its class, called as `layer(channels, **defaults, device=, dtype=)`.
        site: 'conv' after a block's spatial convolution and before its norm, 'block' at the end of a block's residual
            branch, 'stage' at the end of the stages that the backbone lists.
        title: its name in a sentence.
        paper: where it is described.
        defaults: options that differ from the constructor's.
    """

    layer: Callable[..., nn.Module]
    site: Site
    title: str
    paper: str
    defaults: Mapping[str, Any] = field(default_factory=dict)


ATTENTION: Mapping[str, Attention] = MappingProxyType(
    {
        'se': Attention(SE, 'block', 'Squeeze-and-Excitation', 'arXiv:1709.01507'),
        'cbam': Attention(CBAM, 'block', 'CBAM', 'arXiv:1807.06521'),
        'eca': Attention(ECA, 'block', 'ECA', 'arXiv:1910.03151'),
        'gc': Attention(GC, 'block', 'Global Context', 'arXiv:1904.11492'),
        'srm': Attention(SRM, 'block', 'SRM', 'arXiv:1903.10829'),
        'simam': Attention(SimAM, 'conv', 'SimAM', 'ICML 2021, PMLR 139:11863-11874'),
        'bam': Attention(BAM, 'stage', 'BAM (as in the paper)', 'arXiv:1807.06514'),
        'bam_mul': Attention(
            BAM,
            'stage',
            'BAM (as in the released code and weights)',
            'arXiv:1807.06514',
            {'combine': 'product', 'norm': 'inner'},
        ),
        'bamc': Attention(BAM, 'block', 'BAM in every block (BAM-C)', 'arXiv:1807.06514'),
    }
)

__all__ = [
    'ATTENTION',
    'Attention',
    'AttentionLayer',
    'Site',
    'BAM',
    'CBAM',
    'ECA',
    'GC',
    'SE',
    'SRM',
    'SimAM',
    'attention_layers',
]
