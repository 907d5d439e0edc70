"""A learning rate of its own for attention: at a warm start its gates move slowly at that of the rest."""

from typing import Any

import torch
from torch import nn

from timm_attn.attention import attention_layers
from timm_attn.attention.base import positive


def attention_param_groups(model: nn.Module, lr: float, scale: float = 10) -> list[dict[str, Any]]:
    """Parameter groups for any optimiser: the attention layers' parameters at lr * scale, and all others at lr.

    Frozen parameters are left out, and every other one is in one group.

    Raises:
        ValueError: lr or scale is not positive, or there is no attention parameter to train.
    """
    attention = _attention_parameters(model)
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in attention]
    lr = positive('lr', lr)
    groups = [dict(params=others, lr=lr), dict(params=[*attention.values()], lr=lr * positive('scale', scale))]
    return [group for group in groups if group['params']]


def scale_attention(optimizer: torch.optim.Optimizer, model: nn.Module, scale: float) -> None:
    """Splits the groups of an optimiser, so that timm's schedules scale the learning rate of attention.

    Raises:
        ValueError: there is no attention parameter to train, or the optimiser has one group only.
    """
    attention = _attention_parameters(model)
    for group in list(optimizer.param_groups):
        scaled = [p for p in group['params'] if id(p) in attention]
        if scaled:
            group['params'] = [p for p in group['params'] if id(p) not in attention]
            lr_scale = group.get('lr_scale', 1.0) * scale  # timm's schedulers multiply the learning rate by it
            optimizer.add_param_group({**group, 'params': scaled, 'lr_scale': lr_scale})


def _attention_parameters(model: nn.Module) -> dict[int, nn.Parameter]:
    layers = [*attention_layers(model).values()]
    parameters = [p for layer in layers for p in layer.parameters()]
    found = {id(p): p for p in parameters if p.requires_grad}
    if not found:
        kinds = ', '.join(sorted({type(layer).__name__ for layer in layers}))
        why = 'all of them are frozen' if parameters else f'{kinds} has none' if layers else 'it has no attention'
        raise ValueError(f'{type(model).__name__} has no attention parameters to train: {why}.')
    return found
