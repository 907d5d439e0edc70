"""SqueezeNet 1.1 (Iandola et al., 2016, arXiv:1602.07360; version 1.1 of the authors' repository), which timm lacks.

Fire modules, net. The classifier is a 1x1 convolution and ReLU before the global pool.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d, get_device_dtype
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.types import Device

from timm_attn.backbones.features import check_output_stride


class Fire(nn.Module):
    """squeeze act, then expand1x1 and expand3x3 side by side, act."""

    def __init__(self, in_chs: int, squeeze: int, out_chs: int, dd: dict[str, Any]) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_chs, squeeze, 1, **dd)
        self.act = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, out_chs // 2, 1, **dd)
        self.expand3x3 = nn.Conv2d(squeeze, out_chs // 2, 3, padding=1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.squeeze(x))
        return self.act(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(nn.Module):
    """stem (conv act pool), layer1, pool2, layer2, pool3, layer3, classifier, global pool; timm's model interface.

    Args:
        drop_rate: in front of the classifier; the authors train with 0.5.
        num_classes, in_chans, global_pool: as in timm's nets.
        output_stride: the net's own, 16, or None.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        output_stride: int | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        stem = OrderedDict(conv=nn.Conv2d(in_chans, 64, 3, 2, **dd), act=nn.ReLU(inplace=True), pool=_pool())
        self.stem = nn.Sequential(stem)
        self.layer1 = nn.Sequential(Fire(64, 16, 128, dd), Fire(128, 16, 128, dd))
        self.pool2 = _pool()
        self.layer2 = nn.Sequential(Fire(128, 32, 256, dd), Fire(256, 32, 256, dd))
        self.pool3 = _pool()
        self.layer3 = nn.Sequential(
            Fire(256, 48, 384, dd), Fire(384, 48, 384, dd), Fire(384, 64, 512, dd), Fire(512, 64, 512, dd)
        )
        levels = (('layer1', 128, 4), ('layer2', 256, 8), ('layer3', 512, 16))
        self.feature_info: list[dict[str, Any]] = [dict(num_chs=c, reduction=r, module=m) for m, c, r in levels]
        check_output_stride(self, output_stride)
        self.num_features = self.head_hidden_size = 512
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_uniform_(m.weight)
                nn.init.constant_(m.bias, 0)  # type: ignore[arg-type]
        self.global_pool = _global_pool(global_pool)
        self.classifier = self._head(dd)

    def _head(self, dd: dict[str, Any]) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        conv = nn.Conv2d(self.num_features, self.num_classes, 1, **dd)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.constant_(conv.bias, 0)  # type: ignore[arg-type]
        return conv

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return dict(stem=r'^stem', blocks=r'^layer(\d+)' if coarse else r'^layer(\d+)\.(\d+)')

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier on the present device and dtype; the pool stays unless another is named."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = _global_pool(global_pool)
        self.classifier = self._head(get_device_dtype(self)).train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The stages' outputs at `indices` (all if None, the last n if an int), timm's interface."""
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', but got {output_fmt!r}.")
        take, last = feature_take_indices(3, indices)
        stages = [(self.stem, self.layer1), (self.pool2, self.layer2), (self.pool3, self.layer3)]
        intermediates = []
        for i, (before, stage) in enumerate(stages[: last + 1] if stop_early else stages):
            x = before(x)
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if i in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Empties the stages behind the last of `indices`; the head goes with them, or when prune_head."""
        take, last = feature_take_indices(3, indices)
        for i in range(last + 2, 4):
            setattr(self, f'pool{i}', nn.Identity())
            setattr(self, f'layer{i}', nn.Sequential())
        if last < 2:
            self.num_features = self.head_hidden_size = self.feature_info[last]['num_chs']
        if prune_head or last < 2:
            self.reset_classifier(0, '')
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = self.pool2(checkpoint_seq(self.layer1, x))
            x = self.pool3(checkpoint_seq(self.layer2, x))
            return checkpoint_seq(self.layer3, x)
        x = self.layer1(x)
        x = self.layer2(self.pool2(x))
        return self.layer3(self.pool3(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if not pre_logits and self.num_classes > 0:
            if self.drop_rate > 0.0:
                x = F.dropout(x, p=self.drop_rate, training=self.training)
            x = self.classifier(x).relu()
        return self.global_pool(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _global_pool(pool_type: str) -> SelectAdaptivePool2d:
    pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type))
    # as in timm's nets: the pool comes after the classifier, so a concatenating one would double the classes
    assert pool.feat_mult() == 1, f'SqueezeNet cannot take concatenating pooling, but got {pool_type!r}.'
    return pool


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
