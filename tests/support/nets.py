"""Nets for tests: without storage where shapes and keys are read only, with gates that vary where values are."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from timm_attn import ATTENTION

SAMPLE = [f'cifar_resnet20_{a}' for a in ATTENTION] + [
    'resnet18_bam',
    'mobilenetv2_cbam',
    'cifar_preresnet20_srm',
    'cifar_mobilenetv2_simam',
    'cifar_densenet100_12_bam',
    'squeezenet1_1_bam_mul',
]


@cache
def on_meta(name: str) -> Any:
    """`timm.create_model(name)` on the meta device; not to be changed."""
    return timm.create_model(name, device='meta')


def parameters(name: str, **kwargs: Any) -> int:
    """How many a net has; with arguments it is built anew."""
    model = timm.create_model(name, device='meta', **kwargs) if kwargs else on_meta(name)
    return sum(p.numel() for p in model.parameters())


def build(name: str, **kwargs: Any) -> nn.Module:
    """A net of which no parameter and no buffer of a norm has its initial value, so that every gate varies."""
    model = timm.create_model(name, **kwargs).double().eval()
    for value in model.state_dict().values():
        if value.dim() > 1:
            value.copy_(torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    return model


def trained_like(meta: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random weights of these keys and shapes, in float64, with which deep nets do not magnify rounding."""
    generator, found = torch.Generator().manual_seed(0), {}
    for key, empty in meta.items():
        value = torch.zeros(empty.shape, dtype=torch.float64 if empty.is_floating_point() else empty.dtype)
        if value.dim() > 1:
            value.normal_(0, math.sqrt(2 / value[0].numel()), generator=generator)
        elif key.endswith('running_var'):
            value.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith('weight'):
            value.uniform_(0.1, 0.9, generator=generator)
        elif value.dim() == 1:
            value.normal_(0, 0.1, generator=generator)
        found[key] = value
    return found


def batches(model: nn.Module, n: int = 2, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    dtype = next(model.parameters()).dtype
    for _ in range(n):
        yield torch.randn(4, 3, size, size, dtype=dtype), torch.tensor([0, 1, 2, 1])
