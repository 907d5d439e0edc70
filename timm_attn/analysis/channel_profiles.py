"""Channel-weight profiles (ECA-Net supplement, Figure B): the mean attention of every channel for every class."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from timm_attn.analysis.attention_maps import channel_profile, require_attention
from timm_attn.analysis.class_means import ClassMeans, class_means
from timm_attn.analysis.hooks import observed, record


@torch.no_grad()
def channel_profiles(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int
) -> dict[str, ClassMeans]:
    """The mean over a class's images of each attention layer's factor of a channel, by the layer's path.

    Factors that vary over the positions (SimAM, BAM, CBAM) are averaged over them too. `.means` of a layer is
    (classes, C); its mean over the classes is the reference curve of Figure B. Only sums are kept.

    Args:
        batches: normalised images (N, 3, H, W), where the model is, and labels (N,), such as timm's loaders give.

    Raises:
        ValueError: the model has no attention layers, or is scripted or compiled; there are no images, or they are no
            batch for the model; there is not one label of a class for each; a factor is NaN or infinite.
    """
    layers = require_attention(model)
    with observed(model), record(layers, lambda layer, x: channel_profile(layer.attention(x)).cpu()) as profiles:
        return class_means(model, batches, num_classes, profiles)
