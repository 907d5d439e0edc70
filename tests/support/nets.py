"""Nets without storage, each built once per process, for tests that read shapes and keys only."""

from functools import cache
from typing import Any

import timm


@cache
def on_meta(name: str) -> Any:
    """`timm.create_model(name)` on the meta device; not to be changed."""
    return timm.create_model(name, device='meta')


def parameters(name: str, **kwargs: Any) -> int:
    """How many a net has; with arguments it is built anew."""
    model = timm.create_model(name, device='meta', **kwargs) if kwargs else on_meta(name)
    return sum(p.numel() for p in model.parameters())
