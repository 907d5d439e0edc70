"""ResNets and ResNeXts for 32x32 images (He et al., 2016, Section 4.2; Xie et al., 2017, Section 5.3).

Blocks, net. A 3x3 stem, three stages at strides 1, 2 and 4, no max-pool, projection shortcuts with BN.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, create_classifier, get_device_dtype
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.types import Device

from timm_attn.attach.blocks import Slot
from timm_attn.backbones.features import check_output_stride, set_drop_path


def projection(in_chs: int, out_chs: int, stride: int, dd: dict[str, Any], norm: bool = True) -> nn.Sequential | None:
    """The shortcut's 1x1 convolution (and BN) where a block changes its map's shape, else None."""
    if stride == 1 and in_chs == out_chs:
        return None
    conv = nn.Conv2d(in_chs, out_chs, 1, stride, bias=False, **dd)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs, **dd)) if norm else nn.Sequential(conv)


class CifarBasicBlock(nn.Module):
    """conv1 bn1 act1 conv2 [conv_attn] bn2 [block_attn] + shortcut, act2."""

    slots = (Slot('conv', 'conv_attn', 'conv2'), Slot('block', 'block_attn', 'conv2'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        drop_path: nn.Module | None

    def __init__(self, in_chs: int, out_chs: int, stride: int, dd: dict[str, Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(out_chs, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(out_chs, **dd)
        self.downsample = projection(in_chs, out_chs, stride, dd)
        self.act2 = nn.ReLU(inplace=True)
        self.conv_attn = self.block_attn = self.drop_path = None

    def zero_init_last(self) -> None:
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.act1(x)
        x = self.conv2(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn2(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return self.act2(x + shortcut)


class CifarBottleneck(nn.Module):
    """conv1 bn1 act1 conv2 [conv_attn] bn2 act2 conv3 bn3 [block_attn] + shortcut, act3.

    Args:
        ratio: the width of the 3x3 convolution over that of the output: 1/4 in ResNets, 2 in ResNeXt-29 8x64d.
        groups: of the 3x3 convolution.
        stride_first: the stride is in the first 1x1 convolution (the BAM paper's nets), else in the 3x3 (SimAM's).
    """

    slots = (Slot('conv', 'conv_attn', 'conv2'), Slot('block', 'block_attn', 'conv3'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        drop_path: nn.Module | None

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        stride: int,
        dd: dict[str, Any],
        ratio: float = 0.25,
        groups: int = 1,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        width = int(out_chs * ratio)
        stride1, stride2 = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_chs, width, 1, stride1, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(width, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride2, padding=1, groups=groups, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(width, **dd)
        self.act2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out_chs, 1, bias=False, **dd)
        self.bn3 = nn.BatchNorm2d(out_chs, **dd)
        self.downsample = projection(in_chs, out_chs, stride, dd)
        self.act3 = nn.ReLU(inplace=True)
        self.conv_attn = self.block_attn = self.drop_path = None

    def zero_init_last(self) -> None:
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.act1(x)
        x = self.conv2(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn2(x)
        x = self.act2(x)
        x = self.conv3(x)
        x = self.bn3(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return self.act3(x + shortcut)


class CifarResNet(nn.Module):
    """conv1 bn1 act1, layer1 to layer3 at strides 1, 2 and 4, norm, global pool, fc; timm's model interface.

    Args:
        block: called as block(in_chs, out_chs, stride, dd), with dd the device and dtype.
        depth: blocks of each stage.
        widths: output channels of the stem and the three stages.
        preact: the blocks normalise their input: no norm behind the stem, one behind the last stage instead.
        num_classes, in_chans, global_pool, drop_rate, drop_path_rate, zero_init_last: as in timm's ResNet.
        output_stride: the net's own, 4, or None.
    """

    def __init__(
        self,
        block: Callable[..., nn.Module] = CifarBasicBlock,
        depth: int = 3,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        preact: bool = False,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        output_stride: int | None = None,
        zero_init_last: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        stem, *outs = widths
        self.conv1 = nn.Conv2d(in_chans, stem, 3, padding=1, bias=False, **dd)
        self.bn1 = nn.Identity() if preact else nn.BatchNorm2d(stem, **dd)
        self.act1 = nn.Identity() if preact else nn.ReLU(inplace=True)
        self.layer1 = _stage(block, depth, stem, outs[0], 1, dd)
        self.layer2 = _stage(block, depth, outs[0], outs[1], 2, dd)
        self.layer3 = _stage(block, depth, outs[1], outs[2], 2, dd)
        set_drop_path((*self.layer1, *self.layer2, *self.layer3), drop_path_rate)
        self.norm = BatchNormAct2d(outs[2], **dd) if preact else nn.Identity()
        modules = ('act1', 'layer1', 'layer2', 'norm' if preact else 'layer3')
        self.feature_info: list[dict[str, Any]] = [
            dict(num_chs=c, reduction=r, module=m) for c, r, m in zip(widths, (1, 1, 2, 4), modules, strict=True)
        ]
        check_output_stride(self, output_stride)
        self.num_features = outs[2]
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool, **dd)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.init_weights(zero_init_last)

    @torch.jit.ignore
    def init_weights(self, zero_init_last: bool = True) -> None:
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
        if zero_init_last:
            for m in self.modules():
                if isinstance(m, CifarBasicBlock | CifarBottleneck):
                    m.zero_init_last()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return dict(stem=r'^conv1|^bn1', blocks=r'^layer(\d+)' if coarse else r'^layer(\d+)\.(\d+)')

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier on the present device and dtype; the pool stays unless another is named."""
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        dd = get_device_dtype(self)
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=pool_type, **dd)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The stem's and the stages' outputs at `indices` (all if None, the last n if an int), timm's interface.

        The last stage's output is taken after the net's norm, if it has one.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', but got {output_fmt!r}.")
        take, last = feature_take_indices(4, indices)
        x = self.act1(self.bn1(self.conv1(x)))
        intermediates = [x] if 0 in take else []
        stages = [self.layer1, self.layer2, self.layer3][: last if stop_early else 3]
        for i, stage in enumerate(stages, start=1):
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if i == 3:
                x = self.norm(x)
            if i in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Empties the stages behind the last of `indices`; the head goes with them, or when prune_head."""
        take, last = feature_take_indices(4, indices)
        for i in range(last + 1, 4):
            setattr(self, f'layer{i}', nn.Sequential())
        if last < 3:
            self.norm = nn.Identity()
            self.num_features = self.head_hidden_size = self.feature_info[last]['num_chs']
        if prune_head or last < 3:
            self.reset_classifier(0, '')
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq([self.layer1, self.layer2, self.layer3], x, flatten=True)
        else:
            x = self.layer1(x)
            x = self.layer2(x)
            x = self.layer3(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate > 0.0:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _stage(
    block: Callable[..., nn.Module], depth: int, in_chs: int, out_chs: int, stride: int, dd: dict[str, Any]
) -> nn.Sequential:
    first = block(in_chs, out_chs, stride, dd)
    return nn.Sequential(first, *(block(out_chs, out_chs, 1, dd) for _ in range(depth - 1)))
