"""Per-channel statistics that are right in half precision and defined on 1x1 maps."""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def computing_dtype(x: Tensor) -> torch.dtype:
    """float32 for half-precision maps, otherwise their own."""
    return torch.float32 if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else x.dtype


def widen(x: Tensor) -> Tensor:
    """x in its computing_dtype.

    Squares of activations beyond 256 overflow float16, so statistics and what is built on them use this.
    """
    if has_torch_function_unary(x):  # torch.fx cannot follow a branch on a dtype: it keeps this call as one node
        return handle_torch_function(widen, (x,), x)
    dtype = computing_dtype(x)
    return x if x.dtype == dtype else x.to(dtype)


def in_dtype_of(parameter: Tensor, x: Tensor) -> Tensor:
    """The parameter in the dtype of the map x; where it has that already, itself: engines want constant weights."""
    if has_torch_function_unary(x):
        return handle_torch_function(in_dtype_of, (x,), parameter, x)
    return parameter if parameter.dtype == x.dtype else parameter.to(x.dtype)


def widen_float16(x: Tensor, weight: Tensor) -> Tensor:
    """x as float32 where it and the weight it will meet are float16, whose sums over channels overflow.

    Autocast, which keeps the weights in float32, has made its own choice.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(widen_float16, (x,), x, weight)
    if x.dtype == torch.float16 and weight.dtype == torch.float16:
        return x.float()
    return x


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each channel's mean over its pixels, the pixels' squared deviations from it, and their unbiased variance.

    Shape: (N, C, H, W) -> (N, C, 1, 1), (N, C, H, W), (N, C, 1, 1). A map of one pixel has variance 0 (the textbook
    formula divides 0 by 0), and so has one without pixels, whose mean is NaN.
    """
    n = x.shape[2] * x.shape[3]
    mean = x.mean(dim=(2, 3), keepdim=True)
    deviations = (x - mean).square()
    variance = deviations.sum(dim=(2, 3), keepdim=True) / _freedom(n)
    return mean, deviations, variance


def _freedom(n: int) -> float:
    """max(n - 1, 1) of n pixels, also where n is a tracer's tensor or a symbol."""
    freedom = n - 1 + 2 // (n + 1)
    if isinstance(n, int):  # a known size: a constant, and a float one, as engines compute in floats
        return float(freedom)
    return freedom
