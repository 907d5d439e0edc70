"""Nets that cannot take an attention any more."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

# What a module of such a net is, and how to tell
_CLOSED: Mapping[str, Callable[[Any], bool]] = {
    'scripted': lambda m: isinstance(m, torch.jit.ScriptModule),
    'compiled': lambda m: '_orig_mod' in m._modules or getattr(m, '_compiled_call_impl', None) is not None,
    'fused or traced': lambda m: isinstance(m, fx.GraphModule),
    'quantised': lambda m: '.quantized.' in type(m).__module__ or hasattr(m, 'activation_post_process'),
    'sharded': lambda m: (
        hasattr(m, '_fsdp_wrapped_module') or any(hasattr(p, 'device_mesh') for p in m.parameters(False))
    ),
    'distributed': lambda m: isinstance(m, nn.parallel.DistributedDataParallel | nn.DataParallel),
}


def refuse_closed(model: nn.Module) -> None:
    """Raises ValueError for a net whose forward does not follow a change of its modules, or whose parameters are not
    whole."""
    if not isinstance(model, nn.Module):
        raise ValueError(f'An attention goes into an nn.Module, but got {type(model).__name__}.')
    for path, module in model.named_modules():
        for what, holds in _CLOSED.items():
            if holds(module):
                where = f' ({path})' if path else ''
                raise ValueError(f'{type(model).__name__} is {what}{where}: attach before that.')
