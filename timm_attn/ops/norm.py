"""Batch normalisation that survives one value a channel."""

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


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
    """Batch normalisation of (N, C, ...); in training with one value a channel it uses the running statistics.

    A momentum of None averages over all batches so far, as torch's norms do (torch.optim.swa_utils.update_bn).

    A single value has no variance: torch refuses it. Here such a batch (one image whose map was pooled to 1x1) is
    normalised as in evaluation, and the running statistics stay as they are.
    """
    if has_torch_function_unary(x):  # the branch on the number of values stays inside one node of a torch.fx graph
        stats = (running_mean, running_var, num_batches_tracked)
        return handle_torch_function(batch_norm, (x,), x, *stats, weight, bias, training, momentum, eps)
    if training and x.numel() > x.shape[1]:
        num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(num_batches_tracked)
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)
