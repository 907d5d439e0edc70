"""CBAM: Convolutional Block Attention Module (Woo et al., ECCV 2018)."""

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn import ops
from timm_attn.attention.base import AttentionLayer, hidden_width, odd_kernel_size, turn_to, zero
from timm_attn.attention.layers import BatchNorm


class ChannelGate(nn.Module):
    """sigmoid(MLP(mean(F)) + MLP(max(F))), (N, C, H, W) -> (N, C, 1, 1) (CBAM Eq. 2)."""

    def __init__(self, channels: int, hidden: int, device: Device, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        logits = self._mlp(x.mean(dim=(2, 3))) + self._mlp(x.amax(dim=(2, 3)))  # (N, C)
        return logits.sigmoid()[:, :, None, None]

    def _mlp(self, pooled: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(pooled)))


class SpatialGate(nn.Module):
    """sigmoid(BN(conv_k([max over C; mean over C]))), (N, C, H, W) -> (N, 1, H, W) (CBAM Eq. 3)."""

    def __init__(self, kernel_size: int, device: Device, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype)
        self.bn = BatchNorm(1, momentum=0.01, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)  # (N, 2, H, W)
        return self.bn(self.conv(pooled)).sigmoid()


class CBAM(AttentionLayer):
    """F' = Mc(F) * F, then Ms(F') * F': a gate per channel, then a gate per position (CBAM Eq. 1).

    Shape: (N, C, H, W) -> (N, C, H, W). Parameters: 2 C h + C + h + 2 k^2 + 2 with h = C // r (SimAM Table 1 prints
    2 C^2 / r + 2 k^2, without biases and BN). The order of the pools in the 7x7 convolution, (max, mean), and the BN
    behind it with momentum 0.01, which Eq. 3 lacks, are the authors' code; so is its weight starting at zero.

    Args:
        reduction: r. The hidden width is C // r, floored, and at least 1 (the authors' code makes it 0 where C < r).
        kernel_size: k of the spatial gate, odd.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        self.channel = ChannelGate(channels, hidden_width(channels, reduction), device, dtype)
        self.spatial = SpatialGate(odd_kernel_size(kernel_size), device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As in the authors' training code."""
        nn.init.kaiming_normal_(self.spatial.conv.weight, mode='fan_out', nonlinearity='relu')
        nn.init.zeros_(self.spatial.bn.weight)
        nn.init.zeros_(self.channel.fc1.bias)
        nn.init.zeros_(self.channel.fc2.bias)

    def attention(self, x: Tensor) -> Tensor:
        """The product of the two gates, (N, C, H, W)."""
        channel = self.channel(x)
        return channel * self.spatial(x * channel)

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        zero(self.channel.fc2, self.spatial.bn)
        turn_to(mean, self.channel.fc1)
        return 0.25

    def forward(self, x: Tensor) -> Tensor:
        x = ops.check_channels(x, self.channels)
        x = x * self.channel(x)
        return x * self.spatial(x)
