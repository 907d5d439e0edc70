"""Attention in a built net: timm's blocks with slots for it, and what fills them."""

from timm_attn.attach.sites import attach, attention_layers, find_attention, layer_options

__all__ = ['attach', 'attention_layers', 'find_attention', 'layer_options']
