"""The one place that registers hooks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar('T')


@contextmanager
def record(layers: Mapping[str, nn.Module], reading: Callable[[Any, Tensor], T]) -> Iterator[dict[str, T]]:
    """Collects `reading(layer, its input)` of every layer, by name, at each forward pass inside the with block.

    The hooks are gone afterwards, also after an exception.
    """
    readings: dict[str, T] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            readings[name] = reading(layer, inputs[0])

        return hook

    handles = [layer.register_forward_pre_hook(hook_for(name)) for name, layer in layers.items()]
    try:
        yield readings
    finally:
        for handle in handles:
            handle.remove()
