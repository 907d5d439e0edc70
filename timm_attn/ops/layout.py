"""How a map lies in memory, and what it is computed in."""

import torch
from torch import Tensor


def rows_of(x: Tensor) -> Tensor | None:
    """A map as rows of whole channels without a copy, or None if its layout allows no such view.

    (N, C, H, W) in contiguous memory is (N * C, 1, H, W), in channels_last it is what it is.
    """
    if x.is_contiguous():
        return x.view(-1, 1, x.shape[2], x.shape[3])
    return x if x.is_contiguous(memory_format=torch.channels_last) else None


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Of a map that is contiguous or channels_last; contiguous where it is both."""
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def computing_dtype(x: Tensor) -> torch.dtype:
    """float32 for half-precision maps, otherwise their own."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
