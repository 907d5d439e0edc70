"""Attention layers by name, for the nets that are built from layers and not from timm's."""

from torch import nn

from timm_attn.attention import ATTENTION


def attention_layer(attention: str, channels: int) -> nn.Module:
    """The layer of a key of ATTENTION with that row's defaults, (N, channels, H, W) -> the same shape.

    Raises:
        ValueError: no such key.
    """
    row = ATTENTION.get(attention)
    if row is None:
        raise ValueError(f'Unknown attention {attention!r}: choose from {", ".join(ATTENTION)}.')
    return row.layer(channels, **row.defaults)
