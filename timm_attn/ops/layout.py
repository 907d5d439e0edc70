"""The channels of a map, and its layout in memory."""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def check_channels(x: Tensor, channels: int) -> Tensor:
    """x itself, if it is a map of (N, channels, H, W): others could broadcast into a wrong result.

    Raises:
        ValueError: it is not.
    """
    if has_torch_function_unary(x):  # one node of a torch.fx graph, which cannot branch on a shape
        return handle_torch_function(check_channels, (x,), x, channels)
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f'expected a map of shape (N, {channels}, H, W), but got {x.shape}.')
    return x


def rows_of(x: Tensor) -> Tensor | None:
    """A view of a map whose rows are whole channels; None if its layout allows none.

    (N, C, H, W) becomes (N * C, 1, H, W) if contiguous, and stays as it is if channels_last.
    """
    if x.is_contiguous():
        return x.view(-1, 1, x.shape[2], x.shape[3])
    return x if x.is_contiguous(memory_format=torch.channels_last) else None


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The format of a contiguous or channels_last map; contiguous if it is both."""
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last
