"""Attention layers by name, for the nets that are built from layers and not by timm."""

from collections.abc import Collection

from torch import nn

from timm_attn.attention import ATTENTION


def check_attention(attention: str | None) -> None:
    """Raises a ValueError for what is no key of ATTENTION."""
    if attention is not None and attention not in ATTENTION:
        raise ValueError(f'Unknown attention {attention!r}: choose from {", ".join(ATTENTION)}.')


def attention_layer(attention: str, channels: int) -> nn.Module:
    """The layer of a key of ATTENTION with that row's defaults, (N, channels, H, W) -> the same shape.

    Raises:
        ValueError: no such key.
    """
    check_attention(attention)
    row = ATTENTION[attention]
    return row.layer(channels, **row.defaults)


def split_name(name: str, nets: Collection[str], plain: Collection[str] = ()) -> tuple[str, str | None]:
    """'srresnet_bam' -> 'srresnet', 'bam'; 'srresnet' -> 'srresnet', None.

    Args:
        nets: the names of the nets.
        plain: those among them that take no attention.

    Raises:
        ValueError: it is none of the nets, or has another attention.
    """
    net, _, attention = name.partition('_')
    if net not in nets or (net in plain and attention):
        takes = ' or '.join(f'{net}_ATTENTION' for net in nets if net not in plain)
        raise ValueError(f'Unknown model {name!r}: choose from {", ".join(nets)}, {takes}.')
    check_attention(attention or None)
    return net, attention or None


def is_name(name: str, nets: Collection[str], plain: Collection[str] = ()) -> bool:
    """Whether split_name takes it."""
    try:
        split_name(name, nets, plain)
    except ValueError:
        return False
    return True
