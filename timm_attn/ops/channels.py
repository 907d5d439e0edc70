"""A map with other channels than a layer was made for must not broadcast into a wrong result."""

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def check_channels(x: Tensor, channels: int) -> Tensor:
    """x itself, if it is a map of (N, channels, H, W).

    Raises:
        ValueError: it is not.
    """
    if has_torch_function_unary(x):  # one node of a torch.fx graph, which cannot branch on a shape
        return handle_torch_function(check_channels, (x,), x, channels)
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f'expected a map of shape (N, {channels}, H, W), but got {x.shape}.')
    return x
