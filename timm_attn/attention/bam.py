"""BAM: Bottleneck Attention Module (Park et al., BMVC 2018; IJCV 2020, "A Simple and Light-Weight Attention...")."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn import ops
from timm_attn.attention.base import AttentionLayer, hidden_width, positive_integer, turn_to, zero
from timm_attn.attention.layers import BatchNorm, Conv2d, Linear

COMBINE = ('sum', 'product', 'max', 'sum_of_sigmoids')
BRANCHES = ('both', 'channel', 'spatial')
NORMS = ('end', 'inner')


def _norm(present: bool, width: int, device: Device, dtype: torch.dtype | None) -> nn.Module:
    return BatchNorm(width, device=device, dtype=dtype) if present else nn.Identity()


class ChannelBranch(nn.Module):
    """BN(W1 relu(W0 mean(F) + b0) + b1), (N, C, H, W) -> (N, C, 1, 1) (BAM Eq. 3)."""

    def __init__(self, channels: int, hidden: int, inner: bool, device: Device, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden, device=device, dtype=dtype)
        self.bn1 = _norm(inner, hidden, device, dtype)
        self.act = nn.ReLU()
        self.fc2 = Linear(hidden, channels, device=device, dtype=dtype)
        self.bn2 = _norm(not inner, channels, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        pooled = ops.widen_float16(x.mean(dim=(2, 3)), self.fc1.weight)
        hidden = self.fc1(pooled)[:, :, None, None]  # (N, h, 1, 1): norms may be frozen 2d ones
        hidden = self.act(self.bn1(hidden)).flatten(1)
        return self.bn2(self.fc2(hidden)[:, :, None, None])


class SpatialBranch(nn.Module):
    """BN(f3_1x1(f2_3x3(f1_3x3(f0_1x1(F))))), the 3x3 dilated, (N, C, H, W) -> (N, 1, H, W) (BAM Eq. 4)."""

    def __init__(
        self, channels: int, hidden: int, dilation: int, inner: bool, device: Device, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        dilated: dict[str, Any] = dict(kernel_size=3, padding=dilation, dilation=dilation)
        self.conv0 = Conv2d(channels, hidden, 1, device=device, dtype=dtype)
        self.bn0 = _norm(inner, hidden, device, dtype)
        self.conv1 = Conv2d(hidden, hidden, **dilated, device=device, dtype=dtype)
        self.bn1 = _norm(inner, hidden, device, dtype)
        self.conv2 = Conv2d(hidden, hidden, **dilated, device=device, dtype=dtype)
        self.bn2 = _norm(inner, hidden, device, dtype)
        self.conv3 = Conv2d(hidden, 1, 1, device=device, dtype=dtype)
        self.bn3 = _norm(not inner, 1, device, dtype)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = ops.widen_float16(x, self.conv0.weight)
        x = self.act(self.bn0(self.conv0(x)))
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class BAM(AttentionLayer):
    """F + F * sigmoid(Mc(F) + Ms(F)): a channel and a spatial map in parallel, added (BAM Eq. 1 and 2).

    Shape: (N, C, H, W) -> (N, C, H, W). Parameters with h = C // r: 3 C h + 18 h^2 + 5 h + 3 C + 3 as in the paper,
    3 C h + 18 h^2 + 13 h + C + 1 as in the released code. ReLU follows the hidden layers, as in that code; the
    equations print none.

    Args:
        reduction: r (Table 1a). The hidden width is C // r, floored, and at least 1.
        dilation: d of the two 3x3 convolutions (Table 1a).
        combine: how the maps become one (Table 1b): sigmoid of their 'sum' (Eq. 2), of their 'product', which the
            released code and weights use, of their 'max', or the 'sum_of_sigmoids'.
        branches: 'both', or the 'channel' or 'spatial' one alone under a sigmoid (Table 1b).
        identity: add the input (Eq. 1); without it the map alone scales the input ("No identity" of Table 1b).
        norm: batch norms at the 'end' of each branch (Eq. 3 and 4), or 'inner', behind each hidden layer, which the
            released code and weights use.

    Departures from the released code, which does not run (an undefined name): the pool is global, so maps need not
    be square, and a single image trains (its channel branch is normalised with the running statistics).
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        dilation: int = 4,
        combine: str = 'sum',
        branches: str = 'both',
        identity: bool = True,
        norm: str = 'end',
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        choices = (('combine', combine, COMBINE), ('branches', branches, BRANCHES), ('norm', norm, NORMS))
        for name, value, known in choices:
            if value not in known:
                raise ValueError(f'{name} of BAM must be one of {", ".join(known)}, but got {value!r}.')
        hidden = hidden_width(channels, reduction)
        inner = norm == 'inner'
        self.channel = None if branches == 'spatial' else ChannelBranch(channels, hidden, inner, device, dtype)
        self.spatial = (
            None
            if branches == 'channel'
            else SpatialBranch(channels, hidden, positive_integer('dilation', dilation), inner, device, dtype)
        )
        self.combine = combine
        self.identity = identity
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming convolutions and zero biases, as in the authors' training code."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def attention(self, x: Tensor) -> Tensor:
        """The factor of every neuron, 1 + M(F), or M(F) without the identity; broadcastable to (N, C, H, W)."""
        attention = self._map(x).type_as(x)
        return 1.0 + attention if self.identity else attention

    def _map(self, x: Tensor) -> Tensor:
        if self.channel is None:
            assert self.spatial is not None
            return self.spatial(x).sigmoid()
        channel = self.channel(x)
        if self.spatial is None:
            return channel.sigmoid()
        spatial = self.spatial(x)
        if self.combine == 'product':
            return (channel * spatial).sigmoid()
        if self.combine == 'max':
            return torch.maximum(channel, spatial).sigmoid()
        if self.combine == 'sum_of_sigmoids':
            return channel.sigmoid() + spatial.sigmoid()
        return (channel + spatial).sigmoid()

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        channel, spatial = self.channel, self.spatial
        if spatial is not None:
            zero(spatial.conv3 if isinstance(spatial.bn3, nn.Identity) else spatial.bn3)
        if channel is not None:
            if spatial is None or self.combine != 'product':  # a product of two zeros has no gradient
                zero(channel.fc2 if isinstance(channel.bn2, nn.Identity) else channel.bn2)
            if isinstance(channel.bn1, nn.Identity):
                turn_to(mean, channel.fc1)
        gates = 2 if self.combine == 'sum_of_sigmoids' and channel is not None and spatial is not None else 1
        return gates / 2 + int(self.identity)

    def extra_repr(self) -> str:
        return f'combine={self.combine}, identity={self.identity}'
