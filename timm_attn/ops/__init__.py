"""The arithmetic of the attention layers: readable references, and faster paths that equal them (triton: for GPUs)."""

from timm_attn.ops.eager import is_eager
from timm_attn.ops.epilogue import epilogue, epilogue_reference, has_fused_epilogue
from timm_attn.ops.layout import check_channels
from timm_attn.ops.norm import batch_norm
from timm_attn.ops.simam import (
    simam,
    simam_epilogue,
    simam_epilogue_reference,
    simam_path,
    simam_reference,
    simam_weights,
    use_simam_path,
)
from timm_attn.ops.statistics import channel_moments, in_dtype_of, widen, widen_float16

__all__ = [
    'batch_norm',
    'channel_moments',
    'check_channels',
    'has_fused_epilogue',
    'in_dtype_of',
    'is_eager',
    'epilogue',
    'epilogue_reference',
    'simam',
    'simam_epilogue',
    'simam_epilogue_reference',
    'simam_path',
    'simam_reference',
    'simam_weights',
    'use_simam_path',
    'widen',
    'widen_float16',
]
