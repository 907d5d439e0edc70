"""Attention in a built net: timm's blocks with slots for it, the table of places for others, and what fills them."""

from timm_attn.attach.placed import Placement, placements
from timm_attn.attach.sites import attach, find_attention, layer_options
from timm_attn.attention import attention_layers

__all__ = ['Placement', 'attach', 'attention_layers', 'find_attention', 'layer_options', 'placements']
