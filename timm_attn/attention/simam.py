"""SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks (Yang et al., ICML 2021)."""

import torch
from torch import Tensor
from torch.types import Device

from timm_attn import ops
from timm_attn.attention.base import AttentionLayer, positive


class SimAM(AttentionLayer):
    """sigmoid(1 / E) * X: every neuron weighted by how much it stands out in its channel (SimAM Eq. 5 and 6).

    Shape: (N, C, H, W) -> (N, C, H, W). No parameters: channels, device and dtype are the common constructor.

    Args:
        e_lambda: lambda of Eq. 2. The paper's search gives 0.1 on ImageNet and 1e-4 on CIFAR (Sections 4.1, 4.2).
            A checkpoint carries no trace of it: a wrong value loads silently and changes the logits.

    The variance is that of the paper's Figure 3 and of the authors' code, over M - 1; Eq. 5 as printed divides by M.
    Departures from the authors' code: the statistics of half-precision maps are float32 (squares overflow float16
    there), and a 1x1 map has variance 0 (theirs is NaN).
    """

    def __init__(
        self, channels: int, *, e_lambda: float = 1e-4, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(channels)
        self.e_lambda = positive('e_lambda', e_lambda)

    def attention(self, x: Tensor) -> Tensor:
        """The factor of every neuron, (N, C, H, W)."""
        return ops.simam_weights(x, self.e_lambda)

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        raise NotImplementedError('SimAM has no constant factor: its gate depends on the map alone.')

    def forward(self, x: Tensor) -> Tensor:
        return ops.simam(ops.check_channels(x, self.channels), self.e_lambda)

    def extra_repr(self) -> str:
        return f'e_lambda={self.e_lambda:g}'
