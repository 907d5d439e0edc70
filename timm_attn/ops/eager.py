"""Eager-mode checks: where a fast path may replace the plain operations."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Whether no compiler, tracer, torch.func transform or forward-mode differentiation is active."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    return forward_ad._current_level < 0


def has_dispatch_mode(x: Tensor) -> bool:
    """Whether a dispatch mode or a tensor subclass intercepts operations on x; it would not see a Triton kernel."""
    return type(x) not in (Tensor, nn.Parameter) or torch._C._len_torch_dispatch_stack() > 0
