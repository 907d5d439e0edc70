"""SimAM (Yang et al., ICML 2021): 3-D attention weights from a closed-form energy, without parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

from timm_attn.ops.eager import is_eager, may_overwrite
from timm_attn.ops.last_pass import last_pass
from timm_attn.ops.simam_blocks import (
    backward_in_blocks,
    forward_in_blocks,
    map_of,
    refine_in_blocks,
    rows_like,
    rows_of,
)
from timm_attn.ops.statistics import channel_moments, widen

PATHS = ('blocks', 'reference')
_forced: list[str] = []


def simam_weights(x: Tensor, e_lambda: float) -> Tensor:
    """sigmoid(1 / e*) of SimAM Eq. 5 and 6, with 1 / e* = (t - mu)^2 / (4 (var + lambda)) + 0.5.

    The variance divides by M - 1, as in the paper's Figure 3 and the authors' code; Eq. 5 as printed divides by M.

    Args:
        x: the feature map, (N, C, H, W); mu and var are those of each channel's pixels.
        e_lambda: the regulariser lambda of Eq. 2.

    Returns:
        One weight a neuron, (N, C, H, W), in [sigmoid(0.5), 1); float32 for half-precision maps.
    """
    _, deviations, variance = channel_moments(widen(x))
    return _weights(deviations, variance + e_lambda)


def _weights(deviations: Tensor, variance: Tensor) -> Tensor:
    importance = deviations / (4 * variance) + 0.5
    return importance.sigmoid()


def simam_reference(x: Tensor, e_lambda: float) -> Tensor:
    """The definition of simam, which every other path is tested against."""
    return (x * simam_weights(x, e_lambda)).type_as(x)


class _InBlocks(torch.autograd.Function):
    """simam of a map that rows_of can view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, e_lambda: float) -> Tensor:
        rows = rows_of(x)
        assert rows is not None
        out, mean, scale = forward_in_blocks(rows, e_lambda)
        ctx.save_for_backward(x, mean, scale)
        ctx.e_lambda = e_lambda
        return map_of(x, out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient's own gradient is wanted: the formula has one
            return torch.autograd.grad(simam_reference(x, ctx.e_lambda), x, grads, create_graph=True)[0], None
        layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        rows, grad = rows_of(x), rows_of(grads[0].contiguous(memory_format=layout))
        assert rows is not None and grad is not None
        return map_of(x, backward_in_blocks(grad, rows, mean, scale)), None


def simam(x: Tensor, e_lambda: float = 1e-4) -> Tensor:
    """The refined map of SimAM Eq. 6, sigmoid(1 / E) * X, in the dtype and memory format of X, (N, C, H, W).

    It takes the path that simam_path names.
    """
    if torch.jit.is_scripting():
        return simam_reference(x, e_lambda)
    return _by_path(x, e_lambda)


@torch.jit.unused
def _by_path(x: Tensor, e_lambda: float) -> Tensor:
    if simam_path(x) == 'reference':
        return simam_reference(x, e_lambda)
    return _InBlocks.apply(x, e_lambda)


def simam_last_pass(x: Tensor, e_lambda: Tensor, terms: list[Tensor], ceiling: float | None) -> Tensor:
    """last_pass with SimAM's weights as the factor; each channel has its lambda, (1, C, 1, 1), in float32 or more."""
    if torch.jit.is_scripting():
        return _refine(x, e_lambda, terms, ceiling)
    if has_torch_function((x, *terms)):
        return handle_torch_function(simam_last_pass, (x, *terms), x, e_lambda, terms, ceiling)
    return _refine_by_path(x, e_lambda, terms, ceiling)


def _refine(x: Tensor, e_lambda: Tensor, terms: list[Tensor], ceiling: float | None) -> Tensor:
    _, deviations, variance = channel_moments(widen(x))
    return last_pass(x, _weights(deviations, variance + e_lambda), terms, ceiling)


@torch.jit.unused
def _refine_by_path(x: Tensor, e_lambda: Tensor, terms: list[Tensor], ceiling: float | None) -> Tensor:
    if simam_path(x) == 'reference' or not may_overwrite(x):
        return _refine(x, e_lambda, terms, ceiling)
    rows = rows_of(x)
    assert rows is not None
    return map_of(x, refine_in_blocks(rows, rows_like(e_lambda, x), [rows_like(t, x) for t in terms], ceiling))


@torch.jit.unused
def simam_path(x: Tensor) -> str:
    """The path that simam takes for a map: 'blocks' in eager mode, the 'reference' where a graph is being built.

    Compilers fuse the reference themselves; torch.func, forward-mode differentiation, torch.fx and tracing need its
    plain operations, and so does a map that is neither contiguous nor channels_last. `use_simam_path` overrides the
    choice.
    """
    if has_torch_function_unary(x) or not is_eager() or rows_of(x) is None or 0 in x.shape[2:]:
        return 'reference'
    return _forced[-1] if _forced else 'blocks'


@contextmanager
def use_simam_path(path: str) -> Iterator[None]:
    """Inside the block simam takes a path of PATHS, wherever that path can be taken.

    Raises:
        ValueError: there is no such path.
    """
    if path not in PATHS:
        raise ValueError(f'The path of simam must be one of {", ".join(PATHS)}, but got {path!r}.')
    _forced.append(path)
    try:
        yield
    finally:
        _forced.pop()
