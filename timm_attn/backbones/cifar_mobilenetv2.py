"""MobileNetV2 for 32x32 images, as the SimAM paper trains it on CIFAR (Table 2): strides 1 where ImageNet has 2.

Its shortcut is not timm's: a block of stride 1 whose width changes projects its input, and ReLU stands for ReLU6.
"""

from typing import TYPE_CHECKING, Any

import torch
from timm.layers import BatchNormAct2d, create_classifier
from timm.models import EfficientNet
from torch import Tensor, nn
from torch.types import Device

from timm_attn.attach.blocks import Slot
from timm_attn.backbones.cifar_resnet import projection
from timm_attn.backbones.features import check_output_stride, set_drop_path

# (expansion, channels, blocks, stride) of each stage
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_FEATURE_STAGES = (1, 2, 4, 6)  # the last of each resolution


class CifarInvertedResidual(nn.Module):
    """conv_pw bn1 act1 conv_dw [conv_attn] bn2 act2 conv_pwl bn3 [block_attn] (+ shortcut where the stride is 1)."""

    slots = (Slot('conv', 'conv_attn', 'conv_dw'), Slot('block', 'block_attn', 'conv_pwl'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        drop_path: nn.Module | None

    def __init__(self, in_chs: int, out_chs: int, stride: int, expansion: int, dd: dict[str, Any]) -> None:
        super().__init__()
        width = in_chs * expansion
        self.has_skip = stride == 1
        self.conv_pw = nn.Conv2d(in_chs, width, 1, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(width, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_dw = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(width, **dd)
        self.act2 = nn.ReLU(inplace=True)
        self.conv_pwl = nn.Conv2d(width, out_chs, 1, bias=False, **dd)
        self.bn3 = nn.BatchNorm2d(out_chs, **dd)
        self.downsample = projection(in_chs, out_chs, 1, dd) if self.has_skip else None
        self.conv_attn = self.block_attn = self.drop_path = None

    @torch.jit.ignore
    def feature_info(self, location: str) -> dict[str, Any]:
        """Called by timm's EfficientNet on the last child of a stage when it prunes."""
        return dict(module='', num_chs=self.conv_pwl.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv_pw(x)
        x = self.bn1(x)
        x = self.act1(x)
        x = self.conv_dw(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn2(x)
        x = self.act2(x)
        x = self.conv_pwl(x)
        x = self.bn3(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return x + shortcut if self.has_skip else x


class CifarMobileNetV2(EfficientNet):
    """conv_stem bn1, blocks.0 to blocks.6, conv_head bn2, global pool, classifier: timm's EfficientNet."""

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        output_stride: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)  # EfficientNet's own constructor builds timm's blocks
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        chs = 32
        self.conv_stem = nn.Conv2d(in_chans, chs, 3, padding=1, bias=False, **dd)
        self.bn1 = BatchNormAct2d(chs, **dd)
        self.feature_info: list[dict[str, Any]] = [dict(module='bn1', num_chs=chs, stage=0, reduction=1)]
        stages, reduction = [], 1
        for i, (expansion, out_chs, depth, stride) in enumerate(_STAGES):
            first = CifarInvertedResidual(chs, out_chs, stride, expansion, dd)
            others = (CifarInvertedResidual(out_chs, out_chs, 1, expansion, dd) for _ in range(depth - 1))
            stages.append(nn.Sequential(first, *others))
            chs, reduction = out_chs, reduction * stride
            if i in _FEATURE_STAGES:
                info = dict(module=f'blocks.{i}', num_chs=chs, stage=i + 1, reduction=reduction)
                self.feature_info.append(info)
        self.blocks = nn.Sequential(*stages)
        set_drop_path(
            (m for m in self.modules() if isinstance(m, CifarInvertedResidual) and m.has_skip), drop_path_rate
        )
        check_output_stride(self, output_stride)
        self.stage_ends = [info['stage'] for info in self.feature_info]
        self.num_features = 1280
        self.conv_head = nn.Conv2d(chs, self.num_features, 1, bias=False, **dd)
        self.bn2 = BatchNormAct2d(self.num_features, **dd)
        self.global_pool, self.classifier = create_classifier(
            self.num_features, num_classes, pool_type=global_pool, **dd
        )
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
