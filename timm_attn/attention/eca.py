"""ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks (Wang et al., CVPR 2020)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn.attention.base import AttentionLayer, odd_kernel_size, positive, positive_integer, zero


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """The odd k = |log2(C) / gamma + b / gamma|_odd of ECA-Net for a channel count, rounded up to odd."""
    t = int(abs((math.log2(channels) + b) / positive('gamma', gamma)))
    return t if t % 2 else t + 1


class ECA(AttentionLayer):
    """sigmoid(conv1d_k(mean(X))) * X, a gate per channel from its k neighbours. Parameters: k per layer.

    Shape: (N, C, H, W) -> (N, C, H, W). A checkpoint of any odd kernel size loads: the layer takes the file's size
    (the released checkpoints use one size per stage, such as 3, 5, 5, 7, which the formula does not give). Load it
    before making an averaged copy (EMA) or an optimizer's state of the layer: they keep the old size. A layer that has
    a gradient refuses another size.

    Args:
        kernel_size: k, odd; by default adaptive_kernel_size(channels, gamma, b).
        gamma, b: the constants of that formula, 2 and 1 in the paper.
        layers: 1-D convolutions in a row, all of kernel size k (supplement B; it names no activation between them).
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        gamma: float = 2,
        b: float = 1,
        layers: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        k = adaptive_kernel_size(channels, gamma, b) if kernel_size is None else odd_kernel_size(kernel_size)
        conv, *more = (
            nn.Conv1d(1, 1, k, padding=k // 2, bias=False, device=device, dtype=dtype)
            for _ in range(positive_integer('layers', layers))
        )
        self.conv = conv
        self.more = nn.Sequential(*more)

    def attention(self, x: Tensor) -> Tensor:
        """The factor of every channel, (N, C, 1, 1)."""
        squeezed = x.mean(dim=(2, 3))[:, None]  # (N, 1, C)
        return self.more(self.conv(squeezed)).sigmoid()[:, 0, :, None, None]

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        zero(self.more[-1] if len(self.more) else self.conv)
        return 0.5

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + 'conv.weight')
        if weight is not None and weight.dim() == 3 and weight.shape[:2] == (1, 1) and weight.shape[2] % 2:
            self._resize(weight.shape[2], prefix, args[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _resize(self, k: int, prefix: str, errors: list[str]) -> None:
        """Another kernel size in the same Parameter object, so that references to it stay valid."""
        now = self.conv.kernel_size[0]
        if k != now and self.conv.weight.grad is not None:
            errors.append(
                f'{prefix}conv has kernel size {now} and a gradient, so it may be in training, and the checkpoint has '
                f'{k}: load before training, or call zero_grad() first and make the optimizer again.'
            )
        elif k != now:
            self.conv.kernel_size, self.conv.padding = (k,), (k // 2,)
            self.conv.weight.data = self.conv.weight.data.new_empty(1, 1, k)
