"""Pre-activation blocks for 32x32 images (He et al., 2016b; Zagoruyko and Komodakis, 2016); CifarResNet is their net.

Every attention of site 'block' follows the branch's last convolution. The shortcut's convolution has no BN.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from timm_attn.attach.blocks import Slot
from timm_attn.backbones.cifar_resnet import projection


class CifarPreBasicBlock(nn.Module):
    """bn1 act1 conv1 bn2 act2 conv2 [conv_attn] [block_attn] + shortcut.

    Args:
        shared: a projecting shortcut starts from the activated input (wide ResNets), else from the input itself.
    """

    slots = (Slot('conv', 'conv_attn', 'conv2'), Slot('block', 'block_attn', 'conv2'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        drop_path: nn.Module | None

    def __init__(self, in_chs: int, out_chs: int, stride: int, dd: dict[str, Any], shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.bn1 = nn.BatchNorm2d(in_chs, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(out_chs, **dd)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False, **dd)
        self.downsample = projection(in_chs, out_chs, stride, dd, norm=False)
        self.conv_attn = self.block_attn = self.drop_path = None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.act1(self.bn1(x))
        if self.downsample is not None:
            shortcut = self.downsample(x if self.shared else shortcut)
        x = self.conv1(x)
        x = self.bn2(x)
        x = self.act2(x)
        x = self.conv2(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return x + shortcut


class CifarPreBottleneck(nn.Module):
    """bn1 act1 conv1 bn2 act2 conv2 [conv_attn] bn3 act3 conv3 [block_attn] + shortcut.

    Args:
        stride_first: the stride is in the first 1x1 convolution (the BAM paper's nets), else in the 3x3 (SimAM's).
    """

    slots = (Slot('conv', 'conv_attn', 'conv2'), Slot('block', 'block_attn', 'conv3'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        drop_path: nn.Module | None

    def __init__(self, in_chs: int, out_chs: int, stride: int, dd: dict[str, Any], stride_first: bool = False) -> None:
        super().__init__()
        width = out_chs // 4
        stride1, stride2 = (stride, 1) if stride_first else (1, stride)
        self.bn1 = nn.BatchNorm2d(in_chs, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_chs, width, 1, stride1, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(width, **dd)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride2, padding=1, bias=False, **dd)
        self.bn3 = nn.BatchNorm2d(width, **dd)
        self.act3 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out_chs, 1, bias=False, **dd)
        self.downsample = projection(in_chs, out_chs, stride, dd, norm=False)
        self.conv_attn = self.block_attn = self.drop_path = None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(x))
        x = self.conv1(x)
        x = self.bn2(x)
        x = self.act2(x)
        x = self.conv2(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn3(x)
        x = self.act3(x)
        x = self.conv3(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return x + shortcut
