"""Batch normalisation that survives one value per channel."""

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from timm_attn.ops.statistics import widen


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Batch normalisation of (N, C, ...); in training with one value per channel it uses the running statistics.

    A momentum of None averages over all batches so far, as torch's norms do (torch.optim.swa_utils.update_bn).

    A single value has no variance: torch refuses it. Here such a batch (one image whose map was pooled to 1x1) is
    normalised as in evaluation, and the running statistics do not change.
    """
    if has_torch_function_unary(x):  # the branch on the number of values stays in one node of a torch.fx graph
        stats = (running_mean, running_var, num_batches_tracked)
        return handle_torch_function(batch_norm, (x,), x, *stats, weight, bias, training, momentum, eps)
    mean, var = widen(running_mean), widen(running_var)  # torch takes no norm in half precision for a float32 map
    training = training and x.numel() > x.shape[1]
    step = 0.0
    if training:
        num_batches_tracked.add_(1)
        step = 1.0 / float(num_batches_tracked) if momentum is None else momentum
    y = F.batch_norm(x, mean, var, widen(weight), widen(bias), training, step, eps)
    if training and mean.dtype != running_mean.dtype:
        running_mean.copy_(mean)
        running_var.copy_(var).nan_to_num_(nan=float('nan'))  # an infinity would never go away
    return y
