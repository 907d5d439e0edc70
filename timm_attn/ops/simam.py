"""SimAM (Yang et al., ICML 2021): 3-D attention weights from a closed-form energy, without parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function, has_torch_function_unary

from timm_attn.ops.eager import has_dispatch_mode, is_eager, is_inference, may_overwrite
from timm_attn.ops.epilogue import epilogue, epilogue_reference, fits
from timm_attn.ops.layout import memory_format_of, rows_of
from timm_attn.ops.simam_blocks import simam_over
from timm_attn.ops.statistics import channel_moments, widen
from timm_attn.ops.triton import runs_on_triton, triton_is_installed

# Where each fused path has its simam_forward and simam_backward; imported when first taken, for Triton may be missing.
_FUSED = {'triton': 'timm_attn.ops.triton.simam', 'blocks': 'timm_attn.ops.simam_blocks'}
PATHS = (*_FUSED, 'reference')
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
    importance = deviations / (4 * (variance + e_lambda)) + 0.5
    return importance.sigmoid()


def simam_reference(x: Tensor, e_lambda: float) -> Tensor:
    """The definition of simam, which every other path is tested against."""
    return (x * simam_weights(x, e_lambda)).type_as(x)


class _Fused(torch.autograd.Function):
    """simam of a map that rows_of can view, by the path that is named."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, e_lambda: float, path: str) -> Tensor:
        out, mean, scale = import_module(_FUSED[path]).simam_forward(x, e_lambda)
        ctx.save_for_backward(x, mean, scale)
        ctx.e_lambda, ctx.path = e_lambda, path
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, mean, scale = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient's own gradient is wanted: the formula has one
        if again or torch._C._functorch.is_legacy_batchedtensor(grads[0]):  # many at once, as jacobian(vectorize=True)
            with torch.enable_grad():
                exact = torch.autograd.grad(simam_reference(x, ctx.e_lambda), x, grads, create_graph=again)
            return exact[0], None, None
        grad = grads[0].contiguous(memory_format=memory_format_of(x))
        return import_module(_FUSED[ctx.path]).simam_backward(grad, x, mean, scale), None, None


def simam(x: Tensor, e_lambda: float = 1e-4) -> Tensor:
    """The refined map of SimAM Eq. 6, sigmoid(1 / E) * X, in the dtype and memory format of X, (N, C, H, W).

    It takes the path that simam_path names.
    """
    if torch.jit.is_scripting():
        return simam_reference(x, e_lambda)
    return _by_path(x, e_lambda)


@torch.jit.unused
def _by_path(x: Tensor, e_lambda: float) -> Tensor:
    path = simam_path(x)
    if path == 'reference':
        if is_eager() and not has_torch_function_unary(x):
            if x.dim() != 4:
                raise ValueError(f'expected a map of shape (N, C, H, W), but got {tuple(x.shape)}.')
            if 0 in x.shape[2:]:  # no pixels, no statistics
                return x.clone()
        return simam_reference(x, e_lambda)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Fused.apply(x, e_lambda, path)
    return import_module(_FUSED[path]).simam_inference(x, e_lambda)


def simam_epilogue(
    x: Tensor, e_lambda: float, factor: Tensor | None, terms: list[Tensor], ceiling: float | None
) -> Tensor:
    """epilogue with SimAM's weights as the factor, and one more a channel, (1, C, 1, 1), such as that of a norm."""
    if torch.jit.is_scripting():
        return simam_epilogue_reference(x, e_lambda, factor, terms, ceiling)
    return _refine_by_path(x, e_lambda, factor, terms, ceiling)


def simam_epilogue_reference(
    x: Tensor, e_lambda: float, factor: Tensor | None, terms: list[Tensor], ceiling: float | None
) -> Tensor:
    """The definition of simam_epilogue, step by step: x stays as it is."""
    weights = simam_weights(x, e_lambda)
    return epilogue_reference(x, weights if factor is None else weights * factor, terms, ceiling)


@torch.jit.unused
def _refine_by_path(
    x: Tensor, e_lambda: float, factor: Tensor | None, terms: list[Tensor], ceiling: float | None
) -> Tensor:
    path = 'reference' if has_torch_function((x, *terms)) else simam_path(x)
    if path != 'reference' and is_inference(x) and all(fits(term, x) for term in terms):
        if path == 'triton':
            return import_module(_FUSED[path]).simam_forward(x, e_lambda, factor, terms, ceiling)[0]
        if may_overwrite(x):
            return epilogue(simam_over(x, e_lambda), factor, terms, ceiling)
    return simam_epilogue_reference(x, e_lambda, factor, terms, ceiling)


@torch.jit.unused
def simam_path(x: Tensor) -> str:
    """The path that simam takes for a map: in eager mode 'triton' on a GPU where Triton runs, 'blocks' elsewhere.

    It is the 'reference' where a graph is being built: compilers fuse that themselves; torch.func, forward-mode
    differentiation, torch.fx and tracing need its plain operations, and so does a map that is neither contiguous nor
    channels_last. `use_simam_path` overrides the choice, also of 'triton' for maps on the CPU, where Triton's
    interpreter can take it. Subclasses of Tensor and dispatch modes (fake tensors, counters of operations) cannot see
    into kernels: they get 'blocks' instead.
    """
    if has_torch_function_unary(x) or not is_eager() or x.dim() != 4 or 0 in x.shape[2:] or rows_of(x) is None:
        return 'reference'
    path = _forced[-1] if _forced else 'triton' if runs_on_triton(x) else 'blocks'
    return 'blocks' if path == 'triton' and has_dispatch_mode(x) else path


@contextmanager
def use_simam_path(path: str) -> Iterator[None]:
    """Inside the block simam takes a path of PATHS, wherever that path can be taken.

    Raises:
        ValueError: there is no such path.
        RuntimeError: the path is 'triton', and there is no Triton.
    """
    if path not in PATHS:
        raise ValueError(f'The path of simam must be one of {", ".join(PATHS)}, but got {path!r}.')
    if path == 'triton' and not triton_is_installed():
        raise RuntimeError(
            "The path 'triton' of simam needs the package triton, which is not installed; PyTorch's builds for GPUs on "
            'Linux bring it.'
        )
    _forced.append(path)
    try:
        yield
    finally:
        _forced.pop()
