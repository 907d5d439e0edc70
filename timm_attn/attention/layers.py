"""Torch's layers with the dtypes and batch sizes that the attention layers need."""

import torch.nn.functional as F
from torch import Tensor, nn

from timm_attn import ops


class Conv2d(nn.Conv2d):
    """A convolution that computes in its input's dtype, so that a float16 layer can compute in float32."""

    def forward(self, input: Tensor) -> Tensor:
        bias = self.bias
        weight = ops.in_dtype_of(self.weight, input)
        return self._conv_forward(input, weight, None if bias is None else ops.in_dtype_of(bias, input))


class Linear(nn.Linear):
    """A linear layer that computes in its input's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        bias = self.bias
        weight = ops.in_dtype_of(self.weight, input)
        return F.linear(input, weight, None if bias is None else ops.in_dtype_of(bias, input))


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of (N, C, H, W) that also trains with one value per channel (see ops.batch_norm).

    convert_sync_batchnorm replaces it by torch's own, which needs more than one value per channel in all processes.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float | None

    def forward(self, x: Tensor) -> Tensor:
        return ops.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
