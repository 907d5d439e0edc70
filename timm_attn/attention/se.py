"""Squeeze-and-Excitation Networks (Hu et al., CVPR 2018)."""

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn.attention.base import AttentionLayer, hidden_width, turn_to, zero


class SE(AttentionLayer):
    """sigmoid(W2 relu(W1 mean(X))) * X, a gate per channel (SENet Eq. 2 to 4). Parameters: 2 C h.

    Shape: (N, C, H, W) -> (N, C, H, W).

    Args:
        reduction: r. The hidden width h is C // r, floored, and at least 1.
        bias: biases in both layers. False gives the parameters that the SimAM and ECA papers print; True those of
            BAM Table 10.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        bias: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        hidden = hidden_width(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden, bias=bias, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, channels, bias=bias, device=device, dtype=dtype)

    def attention(self, x: Tensor) -> Tensor:
        """The factor of every channel, (N, C, 1, 1)."""
        squeezed = x.mean(dim=(2, 3))  # (N, C)
        return self.fc2(self.act(self.fc1(squeezed))).sigmoid()[:, :, None, None]

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        zero(self.fc2)
        turn_to(mean, self.fc1)
        return 0.5
