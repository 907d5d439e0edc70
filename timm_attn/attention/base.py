"""The base class of the attention layers, and checks of their options."""

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn import ops


class AttentionLayer(nn.Module):
    """X * A(X): subclasses compute A(X) in `attention`, broadcastable to the map.

    Shape: (N, C, H, W) -> (N, C, H, W).

    Raises:
        ValueError: `channels` is not positive, or a map has other channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = positive_integer('channels', channels)

    def attention(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.jit.ignore
    def identity_start(self, mean: Tensor | None = None) -> float:
        """Sets the layer to a constant factor, from which all its parameters can learn, and returns the factor.

        Args:
            mean: the expected input per channel, (C,), where it is known.

        Raises:
            NotImplementedError: the layer has none.
        """
        raise NotImplementedError(f'{type(self).__name__} has no identity_start, so its nets have no warm start.')

    @torch.jit.ignore
    def feature_info(self, location: str) -> dict[str, Any]:
        """Called by timm's EfficientNet on the last child of a stage when it prunes."""
        return dict(module='', num_chs=self.channels)

    def forward(self, x: Tensor) -> Tensor:
        x = ops.check_channels(x, self.channels)
        return x * self.attention(x)


def attention_layers(model: nn.Module) -> dict[str, AttentionLayer]:
    """The attention layers of a net by their paths, in the order of its modules."""
    return {path: module for path, module in model.named_modules() if isinstance(module, AttentionLayer)}


def positive_integer(name: str, value: int) -> int:
    """The option, checked."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f'{name} must be a positive integer, but got {value!r}.')
    return value


def positive(name: str, value: float) -> float:
    """The option as a float, as TorchScript needs it, checked."""
    if not isinstance(value, Real) or not 0 < value < math.inf:
        hint = ' (YAML reads 1e-4 as a text: write 1.0e-4)' if isinstance(value, str) else ''
        raise ValueError(f'{name} must be a positive number, but got {value!r}{hint}.')
    return float(value)


def hidden_width(channels: int, reduction: int, least: int = 1) -> int:
    """C // r, and at least `least` (the authors' layers fail where C < r)."""
    return max(least, channels // positive_integer('reduction', reduction))


def odd_kernel_size(kernel_size: int) -> int:
    """The kernel size, checked: only an odd one keeps the map's size."""
    if positive_integer('kernel_size', kernel_size) % 2 == 0:
        raise ValueError(f'kernel_size must be odd, but got {kernel_size}.')
    return kernel_size


@torch.no_grad()
def zero(*modules: nn.Module) -> None:
    """Sets the weights and biases of layers to zero."""
    for module in modules:
        for parameter in module.parameters():
            parameter.zero_()


@torch.no_grad()
def turn_to(mean: Tensor | None, linear: nn.Linear) -> None:
    """Turns the hidden units that a ReLU behind them would switch off for an expected input, by their sign.

    The fewer units a layer has, the likelier it is that all are off for every image: then it never learns.
    """
    if mean is not None:
        hidden = linear(mean.to(linear.weight)[None])[0]
        sign = torch.where(hidden < 0, -1.0, 1.0).to(hidden)
        linear.weight.mul_(sign[:, None])
        if linear.bias is not None:
            linear.bias.mul_(sign)
