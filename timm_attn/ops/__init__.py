"""The arithmetic of the attention layers: readable references, and faster paths that equal them (triton: for GPUs)."""

from timm_attn.ops.eager import is_eager
from timm_attn.ops.layout import check_channels
from timm_attn.ops.norm import batch_norm
from timm_attn.ops.simam import simam, simam_path, simam_reference, simam_weights, use_simam_path
from timm_attn.ops.statistics import channel_moments, in_dtype_of, widen, widen_float16

__all__ = [
    'batch_norm',
    'channel_moments',
    'check_channels',
    'in_dtype_of',
    'is_eager',
    'simam',
    'simam_path',
    'simam_reference',
    'simam_weights',
    'use_simam_path',
    'widen',
    'widen_float16',
]
