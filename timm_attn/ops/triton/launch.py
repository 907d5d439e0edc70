"""Launches a kernel, after checks of the device, the dtype, the shapes and that no gradient is expected."""

from typing import Any

import torch
from torch import Tensor
from triton.runtime import JITFunction

from timm_attn.ops.layout import memory_format_of
from timm_attn.ops.triton import DTYPES


def launch(kernel: Any, programs: int, x: Tensor, *arguments: Any, **constants: Any) -> None:
    """Runs a kernel on the device of x, its first argument; without programs it launches nothing.

    Raises:
        RuntimeError: x is not on a GPU, and Triton does not interpret.
    """
    if not x.is_cuda and isinstance(kernel, JITFunction):
        raise RuntimeError(
            f'Triton kernels run on a GPU, but got a tensor on {x.device}; elsewhere they run in its interpreter, in '
            'processes started with TRITON_INTERPRET=1.'
        )
    if programs:
        with torch.cuda.device_of(x):
            # allows fused multiply-add: Triton's default is about to change
            kernel[(programs,)](x, *arguments, enable_fp_fusion=True, **constants)


def check_dtype(x: Tensor) -> None:
    """Raises ValueError unless the kernels compute in the dtype of x."""
    if x.dtype not in DTYPES:
        raise ValueError(f'The Triton kernels take {", ".join(map(str, DTYPES))}, but got {x.dtype}.')


def check_no_gradient(name: str, x: Tensor) -> None:
    """Raises RuntimeError if autograd expects a gradient: the kernels have none."""
    if torch.is_grad_enabled() and x.requires_grad:
        raise RuntimeError(f'{name} has no gradient: call it under torch.no_grad() or torch.inference_mode().')


def laid_out_as(x: Tensor, other: Tensor) -> Tensor:
    """A map in the memory format of x (contiguous or channels_last); copied only if it has another."""
    return other.contiguous(memory_format=memory_format_of(x))
