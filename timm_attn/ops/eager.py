"""Whether operations just run, so that they may go any way to their result."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Whether nothing compiles, traces, transforms (torch.func) or differentiates forward (forward_ad)."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    return forward_ad._current_level < 0


def is_inference(x: Tensor) -> bool:
    """Whether a map that is its caller's own may end in any way: in eager mode, and no gradient is wanted."""
    return not torch.is_grad_enabled() and is_eager() and x.dim() == 4 and x.numel() > 0


def may_overwrite(x: Tensor) -> bool:
    """Whether inference works in place on a map: on the CPU."""
    return is_inference(x) and x.device.type == 'cpu'


def has_dispatch_mode(x: Tensor) -> bool:
    """Whether someone looks into the operations on a tensor, and would see nothing of a kernel: modes, subclasses."""
    return type(x) not in (Tensor, nn.Parameter) or torch._C._len_torch_dispatch_stack() > 0
