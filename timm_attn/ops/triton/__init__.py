"""The arithmetic of ops as Triton kernels, for GPUs. Only the other files of this folder import triton.

No GPU has run them yet, so they are taken only where the environment variable TIMM_ATTN_TRITON is 1.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from timm_attn.ops.eager import has_dispatch_mode

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@cache
def triton_is_installed() -> bool:
    return find_spec('triton') is not None


@cache
def _device_is_able(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0)


def runs_on_triton(x: Tensor) -> bool:
    """Whether the kernels take x: on a GPU that Triton supports, in one of DTYPES, and not intercepted."""
    able = x.is_cuda and x.dtype in DTYPES and triton_is_installed() and _device_is_able(x.device)
    return able and not has_dispatch_mode(x)


def takes_triton(x: Tensor) -> bool:
    """Whether ops run the kernels on x by themselves: runs_on_triton, and the user has asked for them."""
    return runs_on_triton(x) and os.environ.get('TIMM_ATTN_TRITON') == '1'


__all__ = ['DTYPES', 'runs_on_triton', 'takes_triton', 'triton_is_installed']
