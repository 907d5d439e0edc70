"""ResNets for 32x32 images (He et al., 2016, Section 4.2), as the SimAM paper trains them on CIFAR.

Block, net, variants. Three stages of 16, 32 and 64 channels, a 3x3 stem, no max-pool, projection shortcuts with BN.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import create_classifier, get_device_dtype
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.types import Device

from timm_attn.blocks import Slot


class CifarBasicBlock(nn.Module):
    """conv1 bn1 act1 conv2 [conv_attn] bn2 [block_attn] + shortcut, act2."""

    slots = {'conv': Slot('conv_attn', 'conv2'), 'block': Slot('block_attn', 'conv2')}
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None

    def __init__(self, in_chs: int, out_chs: int, stride: int, dd: dict[str, Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(out_chs, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(out_chs, **dd)
        self.downsample = None
        if stride != 1 or in_chs != out_chs:
            projection = nn.Conv2d(in_chs, out_chs, 1, stride, bias=False, **dd)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_chs, **dd))
        self.act2 = nn.ReLU(inplace=True)
        self.conv_attn = self.block_attn = None

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
        return self.act2(x + shortcut)


def _stage(in_chs: int, out_chs: int, depth: int, stride: int, dd: dict[str, Any]) -> nn.Sequential:
    first = CifarBasicBlock(in_chs, out_chs, stride, dd)
    return nn.Sequential(first, *(CifarBasicBlock(out_chs, out_chs, 1, dd) for _ in range(depth - 1)))


class CifarResNet(nn.Module):
    """conv1 bn1 act1, layer1 to layer3 at strides 1, 2, 4, global pool, fc; timm's names and its model interface.

    Args:
        depths: blocks of each stage; ResNet-20 has (3, 3, 3).
        num_classes, in_chans, global_pool, drop_rate, zero_init_last: as in timm's ResNet.
    """

    def __init__(
        self,
        depths: tuple[int, int, int],
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        zero_init_last: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        chs = 16
        self.conv1 = nn.Conv2d(in_chans, chs, 3, padding=1, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(chs, **dd)
        self.act1 = nn.ReLU(inplace=True)
        self.feature_info: list[dict[str, Any]] = [dict(num_chs=chs, reduction=1, module='act1')]
        self.layer1 = _stage(chs, chs, depths[0], 1, dd)
        self.layer2 = _stage(chs, 2 * chs, depths[1], 2, dd)
        self.layer3 = _stage(2 * chs, 4 * chs, depths[2], 2, dd)
        for i in range(3):
            self.feature_info.append(dict(num_chs=chs * 2**i, reduction=2**i, module=f'layer{i + 1}'))
        self.num_features = 4 * chs
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
                if isinstance(m, CifarBasicBlock):
                    m.zero_init_last()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return dict(stem=r'^conv1|bn1', blocks=r'^layer(\d+)' if coarse else r'^layer(\d+)\.(\d+)')

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
        """The stem's and the stages' outputs at `indices` (all if None, the last n if an int), timm's interface."""
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', but got {output_fmt!r}.")
        take, last = feature_take_indices(4, indices)
        x = self.act1(self.bn1(self.conv1(x)))
        intermediates = [x] if 0 in take else []
        stages = [self.layer1, self.layer2, self.layer3]
        for i, stage in enumerate(stages[:last] if stop_early else stages, start=1):
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
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
            self.num_features = self.head_hidden_size = self.feature_info[last]['num_chs']
        if prune_head or last < 3:
            self.reset_classifier(0, '')
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq([self.layer1, self.layer2, self.layer3], x, flatten=True)
        x = self.layer1(x)
        x = self.layer2(x)
        return self.layer3(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate > 0.0:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
