"""SSD300 with VGG16 (Liu et al. 2016), the baseline of BAM Table 7, over torchvision's."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import VGG16_Weights
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

from timm_attn.downstream.checks import Checked

CHANNELS = (512, 1024, 512, 256, 256, 256)  # of the six maps
# A place of each map; Liu et al. have 4 in the first, which does not give the paper's counts.
BOXES = (6, 6, 6, 6, 4, 4)
SIZES = (38, 19, 10, 5, 3, 1)  # of the maps, for pictures of 300 x 300
_RATIOS = [[2, 3] if boxes == 6 else [2] for boxes in BOXES]  # beside 1:1 in two sizes, each also turned
# torchvision's: sides of the boxes / 300, pixels a step, and Caffe's normalisation without a scale
_SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
_STEPS = [8, 16, 32, 64, 100, 300]
_MEAN, _STD = [0.48235, 0.45882, 0.40784], [1 / 255] * 3


class SSD300(Checked, SSD):  # type: ignore[misc]
    """SSD of pictures resized to 300 x 300.

    Args:
        backbone: six maps of SIZES.
        channels: of each map.
        num_classes: the classes and the background.
    """

    def __init__(self, backbone: nn.Module, channels: Sequence[int], num_classes: int) -> None:
        boxes = DefaultBoxGenerator(_RATIOS, scales=_SCALES, steps=_STEPS)
        head = SSDHead(list(channels), list(BOXES), num_classes)
        super().__init__(backbone, boxes, (300, 300), num_classes, image_mean=_MEAN, image_std=_STD, head=head)
        self.in_chans, self.num_classes = 3, num_classes


def ssd300(num_classes: int = 21, *, pretrained_backbone: bool = False) -> SSD300:
    """torchvision's SSD300-VGG16 with the paper's boxes: 26,515,936 parameters with 21 classes.

    Takes and returns what torchvision's detectors do: a list of RGB pictures (3, H, W) of 0 ... 1, with targets in
    training; losses in training, else boxes, labels and scores.

    Args:
        num_classes: the classes and the background.
        pretrained_backbone: torchvision's VGG16 as SSD's authors trained it on ImageNet; else random weights.

    Raises:
        ValueError: fewer than 2 classes.
    """
    return SSD300(vgg_maps(num_classes, pretrained_backbone), CHANNELS, num_classes)


def vgg_maps(num_classes: int, pretrained: bool) -> nn.Module:
    """The VGG16 with SSD's further layers: (N, 3, 300, 300) -> a dict of six maps of CHANNELS and SIZES.

    Raises:
        ValueError: fewer than 2 classes.
    """
    if num_classes < 2:
        raise ValueError(f'num_classes must be at least 2, the background and a class, but got {num_classes}.')
    weights, trainable = (VGG16_Weights.IMAGENET1K_FEATURES, 5) if pretrained else (None, None)
    whole = ssd300_vgg16(weights_backbone=weights, num_classes=num_classes, trainable_backbone_layers=trainable)
    maps: nn.Module = whole.backbone
    return maps
