"""Eager-mode checks: where a fast path may replace the plain operations."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Whether no compiler, tracer, torch.func transform or forward-mode differentiation is active."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    return forward_ad._current_level < 0


def is_inference(x: Tensor) -> bool:
    """Whether x is a map with elements, in eager mode and without gradients."""
    return not torch.is_grad_enabled() and is_eager() and x.dim() == 4 and x.numel() > 0


def may_overwrite(x: Tensor) -> bool:
    """Whether a fused epilogue works in place on x: inference on the CPU."""
    return is_inference(x) and x.device.type == 'cpu'


def has_dispatch_mode(x: Tensor) -> bool:
    """Whether a dispatch mode or a tensor subclass intercepts operations on x; it would not see a Triton kernel."""
    return type(x) not in (Tensor, nn.Parameter) or torch._C._len_torch_dispatch_stack() > 0


def is_recorded(x: Tensor) -> bool:
    """Whether a mode or a tensor subclass sees each operation on x, and may keep its results."""
    return has_dispatch_mode(x) or torch._C._len_torch_function_stack() > 0
