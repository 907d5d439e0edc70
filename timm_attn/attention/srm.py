"""SRM: A Style-based Recalibration Module for Convolutional Neural Networks (Lee et al., ICCV 2019)."""

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn import ops
from timm_attn.attention.base import AttentionLayer, zero
from timm_attn.attention.layers import BatchNorm


class SRM(AttentionLayer):
    """sigmoid(BN(w . [mean(X), std(X)])) * X, a gate per channel from its style. Parameters: 4 C.

    Shape: (N, C, H, W) -> (N, C, H, W). `cfc` starts at zero, as in the authors' code.

    Departures from the authors' code: a 1x1 map has standard deviation sqrt(eps) (theirs is NaN), one image of a
    training batch is normalised with the running statistics (theirs raises), and half-precision maps have float32
    statistics. The variance is unbiased, as in their code. SimAM Table 1 prints 6 C, which counts the running
    statistics, and its Table 3 the 2 C of the BN.
    """

    def __init__(self, channels: int, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(channels)
        self.eps = 1e-5  # under the root of the variance
        self.cfc = nn.Parameter(torch.zeros(channels, 2, device=device, dtype=dtype))
        self.bn = BatchNorm(channels, device=device, dtype=dtype)

    def attention(self, x: Tensor) -> Tensor:
        """The factor of every channel, (N, C, 1, 1)."""
        mean, _, variance = ops.channel_moments(ops.widen(x))
        style = torch.cat([mean, (variance + self.eps).sqrt()], dim=3).type_as(x)  # (N, C, 1, 2)
        encoded = (style * self.cfc[:, None]).sum(dim=3, keepdim=True)  # (N, C, 1, 1)
        return self.bn(encoded).sigmoid().type_as(x)  # autocast leaves the norm's output in float32

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        nn.init.normal_(self.cfc)  # not 0: the BN would divide a constant by the root of eps, and its gradients too
        zero(self.bn)
        return 0.5
