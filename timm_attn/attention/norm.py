"""The batch norm that the attention layers share."""

from torch import Tensor, nn

from timm_attn import ops


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of (N, C, H, W) that also trains with one value a channel (see ops.batch_norm).

    convert_sync_batchnorm replaces it by torch's own, which needs more than one value a channel in all processes.
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
