"""What the attention layers of a net apply to their maps."""

import torch
from torch import Tensor, nn

from timm_attn.analysis.hooks import record
from timm_attn.attach import attention_layers


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The factor of each attention layer (GC: the term) for normalised images, by the layer's path.

    Shape: (N, C, H, W) of the layer's own map, with 1 where the attention does not vary (channel gates: H and W).

    Raises:
        ValueError: the model has no attention layers.
    """
    layers = attention_layers(model)
    if not layers:
        raise ValueError(f'{type(model).__name__} has no attention layers.')
    with record(layers, lambda layer, x: layer.attention(x)) as maps:
        model(images)
    return maps
