"""StairNet (Woo et al. 2018): SSD whose maps take in the smaller ones; BAM stands before every classifier."""

from collections import OrderedDict

from torch import Tensor, nn

from timm_attn.attention.layers import BatchNorm
from timm_attn.downstream.layers import attention_layer, check_attention
from timm_attn.downstream.ssd import CHANNELS, SIZES, SSD300, vgg_maps

WIDTH = 256


class Step(nn.Module):
    """ReLU(BN(conv3x3(BN(conv1x1(x)) + BN(deconv3x3(above))))), (N, C, H, W) -> (N, 256, H, W).

    Args:
        channels: C.
        size: H and W, for pictures of 300 x 300.
        above: those of the smaller map, (N, 256, ., .), which is added twice as large; None at the top.
    """

    def __init__(self, channels: int, size: int, above: int | None) -> None:
        super().__init__()
        self.lateral = nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), BatchNorm(WIDTH))
        self.up = None if above is None else nn.Sequential(_double(above, size), BatchNorm(WIDTH))
        smooth = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.smooth = nn.Sequential(smooth, BatchNorm(WIDTH), nn.ReLU())

    def forward(self, x: Tensor, above: Tensor | None) -> Tensor:
        x = self.lateral(x)
        if self.up is not None and above is not None:
            x = x + self.up(above)
        return self.smooth(x)


class StairBackbone(nn.Module):
    """A backbone's six maps, the smallest first into the next, (N, 3, 300, 300) -> six maps (N, 256, ., .).

    Args:
        backbone: SSD's, with the maps as the values of a dict.
        attention: a key of ATTENTION, whose layer ends each map; the detector's classifiers follow.
    """

    def __init__(self, backbone: nn.Module, attention: str | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        smaller: list[int | None] = [*SIZES[1:], None]
        self.steps = nn.ModuleList(Step(*row) for row in zip(CHANNELS, SIZES, smaller, strict=True))
        layers = (nn.Identity() if attention is None else attention_layer(attention, WIDTH) for _ in SIZES)
        self.attention = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.backbone(x)
        above, out = None, []
        for name, step, attention in zip(reversed(maps), reversed(self.steps), reversed(self.attention), strict=True):
            above = step(maps[name], above)
            out.append((name, attention(above)))
        return OrderedDict(reversed(out))


def stairnet300(num_classes: int = 21, attention: str | None = None, *, pretrained_backbone: bool = False) -> SSD300:
    """The StairNet of BAM Table 7 on SSD300-VGG16: 32,006,880 parameters with 21 classes, 32,113,362 with 'bam'.

    Args:
        num_classes: the classes and the background.
        attention: a key of ATTENTION, whose layer stands before each of the six classifiers.
        pretrained_backbone: see ssd300.

    Raises:
        ValueError: fewer than 2 classes, or no such attention.
    """
    check_attention(attention)  # before the VGG16 is built
    stairs = StairBackbone(vgg_maps(num_classes, pretrained_backbone), attention)
    return SSD300(stairs, [WIDTH] * len(SIZES), num_classes)


def _double(size: int, new: int) -> nn.ConvTranspose2d:
    """From size to new: 3x3 with stride 2; from 1 to 3 the whole kernel, otherwise without its border."""
    padding = 0 if (size, new) == (1, 3) else 1
    output_padding = new - ((size - 1) * 2 + 3 - 2 * padding)
    return nn.ConvTranspose2d(WIDTH, WIDTH, 3, stride=2, padding=padding, output_padding=output_padding)
