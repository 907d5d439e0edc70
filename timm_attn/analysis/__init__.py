"""Functions (model, images) -> tensors that show what a net attends to; no plotting."""

from timm_attn.analysis.attention_maps import attention_maps

__all__ = ['attention_maps']
