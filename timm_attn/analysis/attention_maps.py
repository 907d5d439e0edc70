"""The factors that the attention layers of a net apply to their maps."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_attn.analysis.hooks import observed, record, refuse_compiled, run
from timm_attn.attention import BAM, CBAM, AttentionLayer, attention_layers

# The branches of the layers that have two, as their equations name them.
BRANCHES: Mapping[type[AttentionLayer], Mapping[str, Callable[[Any, Tensor], Tensor]]] = MappingProxyType(
    {
        BAM: {'channel': lambda layer, x: layer.channel(x), 'spatial': lambda layer, x: layer.spatial(x)},
        CBAM: {
            'channel': lambda layer, x: layer.channel(x),
            'spatial': lambda layer, x: layer.spatial(x * layer.channel(x)),
        },
    }
)


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The factor of each attention layer (GC: the term) for normalised images, by the layer's path.

    SimAM's weights, BAM's 1 + M(F), CBAM's Mc * Ms, the gates of SE, ECA and SRM.

    Shape: (N, C, H, W) of the layer's own map, with size 1 where it is constant (channel gates: H and W).
    `spatial_map`, `channel_profile` and `resized` reduce it to maps and curves.

    Raises:
        ValueError: the model has no attention layers, or is scripted or compiled; the images are no batch for it.
    """
    with observed(model), record(require_attention(model), lambda layer, x: layer.attention(x)) as maps:
        run(model, images)
    return maps


@torch.no_grad()
def branch_maps(model: nn.Module, images: Tensor) -> dict[str, dict[str, Tensor]]:
    """The branches 'channel', (N, C, 1, 1), and 'spatial', (N, 1, H, W), of BAM and CBAM layers, by the layer's path.

    CBAM's are its gates, whose product is the factor; BAM's are Mc(F) and Ms(F) of its Eq. 3 and 4, before the sigmoid.

    Raises:
        ValueError: the model has no layer of that kind, or is scripted or compiled; the images are no batch for it.
    """
    layers = {path: layer for path, layer in require_attention(model).items() if type(layer) in BRANCHES}
    if not layers:
        known = ' or '.join(layer.__name__ for layer in BRANCHES)
        raise ValueError(f'{type(model).__name__} has no attention layer with two branches ({known}).')
    with observed(model), record(layers, _branches) as maps:
        run(model, images)
    return maps


def _branches(layer: Any, x: Tensor) -> dict[str, Tensor]:
    return {
        name: branch(layer, x) for name, branch in BRANCHES[type(layer)].items() if getattr(layer, name) is not None
    }


def require_attention(model: nn.Module) -> dict[str, AttentionLayer]:
    """The attention layers of a net by their paths.

    Raises:
        ValueError: it has none, or is scripted or compiled.
    """
    refuse_compiled(model)
    layers = attention_layers(model)
    if not layers:
        raise ValueError(f'{type(model).__name__} has no attention layers.')
    return layers


def spatial_map(factor: Tensor) -> Tensor:
    """The mean over the channels, (N, C, H, W) -> (N, H, W), as BAM Figure 5 and SimAM Figure 6 show attention."""
    return factor.mean(dim=1)


def channel_profile(factor: Tensor) -> Tensor:
    """The mean over the positions, (N, C, H, W) -> (N, C), as BAM Figure 5 shows attention."""
    return factor.mean(dim=(2, 3))


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps at another resolution, such as the input's: (N, h, w) -> (N, H, W), bilinear."""
    return F.interpolate(maps[:, None], size, mode='bilinear', align_corners=False)[:, 0]
