"""SRResNet for pictures four times as large (Ledig et al. 2017), with attention behind its blocks (BAM Table 8)."""

import torch.nn.functional as F
from torch import Tensor, nn

from timm_attn.attention.base import positive_integer
from timm_attn.downstream.layers import attention_layer, check_attention

SCALE = 4


class ResidualBlock(nn.Module):
    """x + BN(conv(PReLU(BN(conv(x))))), 3x3, (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.PReLU()
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))


class SRResNet(nn.Module):
    """RGB pictures of 0 ... 1, (N, 3, H, W) -> (N, 3, 4H, 4W), of which training leaves nearly all within 0 ... 1.

    Args:
        attention: a key of ATTENTION; its layer stands behind every `every`-th block.
        bicubic_skip: learn what the bicubic enlargement lacks, which is where the net then starts. Without it, as in
            the paper, the net learns the whole picture.
    """

    def __init__(self, attention: str | None, every: int, blocks: int, width: int, bicubic_skip: bool) -> None:
        super().__init__()
        self.head = nn.Sequential(_conv(3, width, 9), nn.PReLU())
        body: list[nn.Module] = []
        for number in range(1, blocks + 1):
            body.append(ResidualBlock(width))
            if attention is not None and number % every == 0:
                body.append(attention_layer(attention, width))
        self.body = nn.Sequential(*body)
        self.neck = nn.Sequential(_conv(width, width, 3), nn.BatchNorm2d(width))
        self.upsample = nn.Sequential(_double(width), _double(width))
        self.tail = _conv(width, 3, 9)
        self.bicubic_skip = bicubic_skip
        if bicubic_skip:
            nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.head(2 * x - 1)
        deep = self.upsample(shallow + self.neck(self.body(shallow)))
        picture = self.tail(deep)
        return picture + enlarge(x) if self.bicubic_skip else (picture + 1) / 2


def enlarge(x: Tensor) -> Tensor:
    """The bicubic enlargement of MATLAB but for the borders (antialias=True has its a = -0.5), (N, 3, H, W)."""
    size = (x.shape[2] * SCALE, x.shape[3] * SCALE)
    return F.interpolate(x, size=size, mode='bicubic', antialias=True)


def srresnet(
    attention: str | None = None,
    every: int = 4,
    *,
    blocks: int = 16,
    width: int = 64,
    bicubic_skip: bool = False,
) -> SRResNet:
    """The SRResNet of BAM Table 8, with 1,549,462 parameters, and 1,554,546 with 'bam'.

    Args:
        attention: a key of ATTENTION, whose layer stands behind every `every`-th block.
        blocks, width: the residual blocks and their channels.
        bicubic_skip: learn the difference to the bicubic enlargement, which short trainings need.

    Raises:
        ValueError: no such attention, or numbers that are not positive.
    """
    for name, value in (('every', every), ('blocks', blocks), ('width', width)):
        positive_integer(name, value)
    check_attention(attention)
    return SRResNet(attention, every, blocks, width, bicubic_skip)


def _double(width: int) -> nn.Sequential:
    """Twice as large by a sub-pixel convolution."""
    return nn.Sequential(_conv(width, 4 * width, 3), nn.PixelShuffle(2), nn.PReLU())


def _conv(channels: int, width: int, kernel_size: int) -> nn.Conv2d:
    """Kaiming weights: with torch's own the maps shrink from layer to layer, and the net learns to be silent."""
    conv = nn.Conv2d(channels, width, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(conv.weight, a=0.25)  # the slope of nn.PReLU
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
