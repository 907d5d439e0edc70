"""UPerNet (Xiao et al. 2018) with the decoder of CSAIL's code for ADE20K, over any timm backbone (BAM Table 9)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import Normalize

from timm_attn.attention.base import positive_integer
from timm_attn.attention.layers import BatchNorm
from timm_attn.downstream.backbone import Features

POOL_SIZES = (1, 2, 3, 6)
POOL_WIDTH = 512


class UPerNetDecoder(nn.Module):
    """Pyramid pooling of the smallest map, a feature pyramid, and a classifier of all levels together.

    Four maps (N, C, H, W), the largest first -> logits (N, num_classes, H, W) at the size of the largest.

    Args:
        channels: C of each map.
        width: the channels of the pyramid.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        top = channels[-1]
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), _conv(top, POOL_WIDTH, 1)) for size in POOL_SIZES
        )
        self.top = _conv(top + len(POOL_SIZES) * POOL_WIDTH, width, 3)
        self.laterals = nn.ModuleList(_conv(c, width, 1) for c in channels[:-1])
        self.smooths = nn.ModuleList(_conv(width, width, 3) for _ in channels[:-1])
        self.fuse = _conv(len(channels) * width, width, 3)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As CSAIL's: Kaiming convolutions, biases of norms 1e-4."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 1e-4)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        x = self.top(torch.cat([x, *(_resized(pool(x), x) for pool in self.pools)], dim=1))
        levels = [x]
        for map_, lateral, smooth in zip(maps[-2::-1], reversed(self.laterals), reversed(self.smooths), strict=True):
            side = lateral(map_)
            x = side + _resized(x, side)
            levels.append(smooth(x))
        largest = levels[-1]
        return self.classifier(self.fuse(torch.cat([_resized(level, largest) for level in reversed(levels)], dim=1)))


class UPerNet(nn.Module):
    """RGB pictures of 0 ... 1, (N, 3, H, W) -> logits (N, num_classes, H, W)."""

    def __init__(
        self,
        backbone: Features,
        num_classes: int,
        width: int,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = UPerNetDecoder(backbone.channels, num_classes, width)
        mean, std = backbone.statistics()
        mean, std = list(image_mean or mean), list(image_std or std)
        self.normalize = Normalize(mean, std)
        self.settings = dict(mean=mean, std=std, model_kwargs=backbone.kwargs)  # for the recipe

    def forward(self, x: Tensor, full_size: bool = True) -> Tensor:
        """The logits at the picture's size, or else at that of the largest map, at which CSAIL trains."""
        logits = self.decoder(list(self.backbone(self.normalize(x)).values()))
        return _resized(logits, x) if full_size else logits


def upernet(
    backbone: str,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_kwargs: Mapping[str, Any] | None = None,
    width: int = 256,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
) -> UPerNet:
    """UPerNet for scene parsing; `decoder` is CSAIL's, with 18,265,750 parameters for ResNet-50 and 150 classes.

    Args:
        backbone: of timm or of the zoo, with or without a tag, with features of at least two strides.
        num_classes: those that pixels can have.
        pretrained_backbone: load the backbone's checkpoint.
        backbone_kwargs: of timm.create_model, such as attn_kwargs.
        width: the channels of the pyramid: 256 is CSAIL's `upernet_lite`, 512 its `upernet`.
        image_mean, image_std: of the pictures; by default those that the backbone was made for.

    Raises:
        ValueError: the backbone has no such features, or numbers that are not positive.
    """
    for name, value in (('num_classes', num_classes), ('width', width)):
        positive_integer(name, value)
    features = Features(backbone, pretrained=pretrained_backbone, kwargs=backbone_kwargs)
    return UPerNet(features, num_classes, width, image_mean, image_std)


def _conv(channels: int, width: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, BatchNorm(width), nn.ReLU())


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode='bilinear', align_corners=False)
