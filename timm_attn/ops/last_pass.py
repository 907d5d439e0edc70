"""The end of a block in one pass over its map: attention's factor, what is added, the activation. For inference."""

from collections.abc import Iterator
from importlib import import_module

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from timm_attn.ops.eager import is_inference, may_overwrite
from timm_attn.ops.simam_blocks import rows_of
from timm_attn.ops.triton import runs_on_triton

_PIECE_BYTES = 1 << 20  # of the map: a piece and what it meets stay in a core's share of the cache


def last_pass(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    """x * factor + terms, clamped to [0, ceiling] where there is one (inf is ReLU, 6 ReLU6), in the dtype of x.

    It may overwrite x, (N, C, H, W), to which the factor and the terms broadcast. Without gradients.
    """
    if torch.jit.is_scripting():
        return _by_definition(x, factor, terms, ceiling)
    if has_torch_function((x, *terms)):
        return handle_torch_function(last_pass, (x, *terms), x, factor, terms, ceiling)
    return _by_path(x, factor, terms, ceiling)


@torch.jit.unused
def _by_path(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    fitting = all(fits(term, x) for term in terms)
    if fitting and _has_kernel(x, factor, terms):
        kernels = import_module('timm_attn.ops.triton.last_pass')  # where Triton is missing nothing needs it
        return kernels.last_pass(x, factor, terms, ceiling)
    if fitting and may_overwrite(x):
        return _in_pieces(x, factor, terms, ceiling)
    return _by_definition(x, factor, terms, ceiling)


def has_last_pass(x: Tensor) -> bool:
    """Whether last_pass takes fewer passes over a map than its steps: in inference, on the CPU and on most GPUs."""
    return may_overwrite(x) or (is_inference(x) and runs_on_triton(x))


def _has_kernel(x: Tensor, factor: Tensor | None, terms: list[Tensor]) -> bool:
    """Whether Triton's kernel takes this: up to two terms, and a map on a GPU, contiguous or channels_last."""
    if not (is_inference(x) and runs_on_triton(x) and len(terms) <= 2 and rows_of(x) is not None):
        return False
    return all(t.dim() == 4 and t.device == x.device and fits(t, x) for t in (factor, *terms) if t is not None)


def fits(term: Tensor, x: Tensor) -> bool:
    """Whether x keeps its shape when the term is added."""
    return term.shape == x.shape or torch.broadcast_shapes(term.shape, x.shape) == x.shape


def _by_definition(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    y = x if factor is None else x * factor
    for term in terms:
        y = y + term
    if ceiling is not None:
        y = y.clamp(0.0, ceiling)
    return y.type_as(x)


def _in_pieces(x: Tensor, factor: Tensor | None, terms: list[Tensor], ceiling: float | None) -> Tensor:
    factor = None if factor is None else factor.expand_as(x)
    terms = [term.expand_as(x) for term in terms]
    for piece in pieces(x):
        part = x[piece]
        if factor is not None and terms:
            torch.addcmul(terms[0][piece], part, factor[piece], out=part)
        elif factor is not None:
            part.mul_(factor[piece])
        for term in terms[factor is not None :]:
            part.add_(term[piece])
        if ceiling is not None:
            part.clamp_(0.0, ceiling)
    return x


def pieces(x: Tensor) -> Iterator[tuple[slice, ...]]:
    """Indices of parts of about _PIECE_BYTES: images, or stretches of the memory of one."""
    n, c, h, w = x.shape
    bytes_of_image = c * h * w * x.element_size()
    if bytes_of_image <= _PIECE_BYTES:
        step = _PIECE_BYTES // bytes_of_image
        yield from ((slice(i, i + step),) for i in range(0, n, step))
        return
    outer, before = (c, ()) if x.is_contiguous() else (h, (slice(None),))
    step = max(1, outer * _PIECE_BYTES // bytes_of_image)
    for i in range(n):
        yield from ((slice(i, i + 1), *before, slice(j, j + step)) for j in range(0, outer, step))
