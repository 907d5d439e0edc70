"""A warm start: a net with attention that computes what the plain net does, exactly, and from which it learns."""

from timm_attn.warm_start.start import warm_start

__all__ = ['warm_start']
