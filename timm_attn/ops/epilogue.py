"""The fused epilogue of a block, for inference: attention's factor, the added terms and the activation in one pass."""

import math
from importlib import import_module

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from timm_attn.ops.eager import is_inference, may_overwrite
from timm_attn.ops.layout import rows_of
from timm_attn.ops.triton import takes_triton


def epilogue(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    """x * factor + terms, clamped to [0, ceiling] if there is a ceiling (inf is ReLU, 6 ReLU6), in the dtype of x.

    The factor and the terms broadcast to x, (N, C, H, W). Without gradients it may overwrite x. With gradients, and
    where operations are recorded (torch.fx), it is epilogue_reference, which does not but may return x.
    """
    if torch.jit.is_scripting():
        return epilogue_reference(x, factor, terms, ceiling)
    return _by_path(x, factor, terms, ceiling)


def epilogue_reference(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    """The definition of epilogue. It does not overwrite x, but may return it."""
    y = x if factor is None else x * factor
    for term in terms:
        y = y + term
    if ceiling is not None:
        y = y.relu() if ceiling == math.inf else y.clamp(0.0, ceiling)
    return y.type_as(x)


@torch.jit.unused
def _by_path(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    if has_torch_function((x, *terms)):
        return epilogue_reference(x, factor, terms, ceiling)
    fitting = all(fits(term, x) for term in terms)
    if fitting and _has_kernel(x, factor, terms):
        kernels = import_module('timm_attn.ops.triton.epilogue')  # Triton may be missing
        return kernels.epilogue(x, factor, terms, ceiling)
    if fitting and may_overwrite(x):
        return _in_place(x, factor, terms, ceiling)
    return epilogue_reference(x, factor, terms, ceiling)


def has_fused_epilogue(x: Tensor) -> bool:
    """Whether epilogue of x is faster than its reference: inference on the CPU, or on a GPU with Triton's kernels."""
    return may_overwrite(x) or (is_inference(x) and takes_triton(x))


def _has_kernel(x: Tensor, factor: Tensor | None, terms: list[Tensor]) -> bool:
    """Whether Triton's kernel applies: up to two terms and a contiguous or channels_last map on a GPU."""
    if not (is_inference(x) and takes_triton(x) and len(terms) <= 2 and rows_of(x) is not None):
        return False
    return all(t.dim() == 4 and t.device == x.device and fits(t, x) for t in (factor, *terms) if t is not None)


def fits(term: Tensor, x: Tensor) -> bool:
    """Whether x keeps its shape when the term is added."""
    return term.shape == x.shape or torch.broadcast_shapes(term.shape, x.shape) == x.shape


def _in_place(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    """In place: new memory costs more than the arithmetic, and addcmul is slow with operands that broadcast."""
    if factor is not None:
        x.mul_(factor)
    for term in terms:
        x.add_(term)
    return x if ceiling is None else x.clamp_(0.0, ceiling)
