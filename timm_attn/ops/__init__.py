"""The arithmetic of the attention layers: readable references, and faster paths that equal them (triton: for GPUs)."""

from timm_attn.ops.channels import check_channels
from timm_attn.ops.eager import is_eager
from timm_attn.ops.last_pass import has_last_pass, last_pass, last_steps
from timm_attn.ops.norm import batch_norm
from timm_attn.ops.simam import (
    simam,
    simam_last_pass,
    simam_last_steps,
    simam_path,
    simam_reference,
    simam_weights,
    use_simam_path,
)
from timm_attn.ops.statistics import channel_moments, widen, widen_float16

__all__ = [
    'batch_norm',
    'channel_moments',
    'check_channels',
    'has_last_pass',
    'is_eager',
    'last_pass',
    'last_steps',
    'simam',
    'simam_last_pass',
    'simam_last_steps',
    'simam_path',
    'simam_reference',
    'simam_weights',
    'use_simam_path',
    'widen',
    'widen_float16',
]
