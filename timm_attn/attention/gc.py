"""GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond (Cao et al., 2019)."""

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn import ops
from timm_attn.attention.base import AttentionLayer, hidden_width, zero


class GC(AttentionLayer):
    """X + W2 relu(LN(W1 sum_j softmax(Wk X)_j X_j)): a global context added to every position (GCNet Eq. 5).

    Shape: (N, C, H, W) -> (N, C, H, W). Parameters: 2 C h + 2 C + 3 h + 1 with the hidden width h; SimAM Table 1
    prints 2 C^2 / r + C, without biases and LN. W2 starts at zero, as in the authors' code: the layer is the identity.

    Args:
        reduction: r; h is C // r, floored, and at least 2: LN makes a single value constant, so that W1 and Wk would
            not learn. The authors' code has C // r, with which such a layer adds the same term to every image.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        hidden = hidden_width(channels, reduction, least=2)
        self.conv_mask = nn.Conv2d(channels, 1, 1, device=device, dtype=dtype)
        self.fc1 = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(hidden, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, channels, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.conv_mask.weight, mode='fan_in', nonlinearity='relu')
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def attention(self, x: Tensor) -> Tensor:
        """The term added to every channel, (N, C, 1, 1)."""
        mask = self.conv_mask(x).flatten(2).softmax(dim=2)  # (N, 1, H * W)
        context = (x.flatten(2) @ mask.transpose(1, 2)).flatten(1)  # (N, C)
        return self.fc2(self.act(self.norm(self.fc1(context))))[:, :, None, None]

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        zero(self.fc2)
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = ops.check_channels(x, self.channels)
        return x + self.attention(x)
