"""SimAM (Yang et al., ICML 2021): 3-D attention weights from a closed-form energy, without parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary

from timm_attn.ops.eager import has_dispatch_mode, is_eager
from timm_attn.ops.layout import memory_format_of, rows_of
from timm_attn.ops.statistics import channel_moments, widen
from timm_attn.ops.triton import takes_triton, triton_is_installed

# The modules of the fused paths; imported when first taken, for Triton may be missing
_KERNELS = {'triton': 'timm_attn.ops.triton.simam', 'blocks': 'timm_attn.ops.simam_blocks'}
PATHS = (*_KERNELS, 'reference')
_forced: list[str] = []


def simam_weights(x: Tensor, e_lambda: float) -> Tensor:
    """sigmoid(1 / e*) of SimAM Eq. 5 and 6, with 1 / e* = (t - mu)^2 / (4 (var + lambda)) + 0.5.

    The variance divides by M - 1, as in the paper's Figure 3 and the authors' code; Eq. 5 as printed divides by M.

    Args:
        x: the feature map, (N, C, H, W); mu and var are those of each channel's pixels.
        e_lambda: the regulariser lambda of Eq. 2.

    Returns:
        One weight per neuron, (N, C, H, W), in [sigmoid(0.5), 1); float32 for half-precision maps.
    """
    _, deviations, variance = channel_moments(widen(x))
    importance = deviations / (4.0 * (variance + e_lambda)) + 0.5
    return importance.sigmoid()


def simam_reference(x: Tensor, e_lambda: float) -> Tensor:
    """The definition of simam, which every other path is tested against."""
    return (x * simam_weights(x, e_lambda)).type_as(x)


def simam(x: Tensor, e_lambda: float = 1e-4) -> Tensor:
    """The refined map of SimAM Eq. 6, sigmoid(1 / E) * X, in the dtype and memory format of X, (N, C, H, W).

    It takes the path that simam_path names.
    """
    if torch.jit.is_scripting():
        return simam_reference(x, e_lambda)
    return _simam_by_path(x, e_lambda)


class _Fused(torch.autograd.Function):
    """simam by the kernels of a path, with their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, e_lambda: float, kernels: Any) -> Tensor:
        out, mean, scale = kernels.simam_forward(x, e_lambda)
        ctx.save_for_backward(x, mean, scale)
        ctx.e_lambda, ctx.kernels = e_lambda, kernels
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, mean, scale = ctx.saved_tensors
        twice = torch.is_grad_enabled()  # a second derivative is wanted: the formula has one
        if twice or torch._C._functorch.is_legacy_batchedtensor(grads[0]):  # vmapped, as by jacobian(vectorize=True)
            with torch.enable_grad():
                exact = torch.autograd.grad(simam_reference(x, ctx.e_lambda), x, grads, create_graph=twice)
            return exact[0], None, None
        grad = grads[0].contiguous(memory_format=memory_format_of(x))
        return ctx.kernels.simam_backward(grad, x, mean, scale), None, None


@torch.jit.unused
def _simam_by_path(x: Tensor, e_lambda: float) -> Tensor:
    kernels = _kernels(x)
    if kernels is not None:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Fused.apply(x, e_lambda, kernels)
        return kernels.simam_inference(x, e_lambda)
    if is_eager() and not has_torch_function_unary(x) and x.dim() != 4:
        raise ValueError(f'expected a map of shape (N, C, H, W), but got {tuple(x.shape)}.')
    return simam_reference(x, e_lambda)


def _kernels(x: Tensor) -> Any:
    """The module of a map's path, with simam_forward, _backward and _inference; None for the reference."""
    path = simam_path(x)
    return None if path == 'reference' else import_module(_KERNELS[path])


@torch.jit.unused
def simam_path(x: Tensor) -> str:
    """The path that simam takes for a map: in eager mode 'blocks', or 'triton' on a GPU where TIMM_ATTN_TRITON is 1.

    It is the 'reference' for graphs, which compilers fuse themselves, for torch.func, forward-mode differentiation and
    tracing, and for maps that are neither contiguous nor channels_last. `use_simam_path` overrides the choice, also
    with 'triton' for maps on the CPU, where Triton's interpreter runs. Subclasses of Tensor and dispatch modes (fake
    tensors, operation counters) do not see Triton kernels: they get 'blocks' instead.
    """
    if has_torch_function_unary(x) or not is_eager() or x.dim() != 4 or 0 in x.shape[2:] or rows_of(x) is None:
        return 'reference'
    path = _forced[-1] if _forced else 'triton' if takes_triton(x) else 'blocks'
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
