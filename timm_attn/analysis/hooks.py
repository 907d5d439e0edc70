"""The one place that registers hooks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from timm_attn.attach.probe import in_evaluation
from timm_attn.deploy.fused_net import FusedNet

T = TypeVar('T')


@contextmanager
def hooked(
    layers: Mapping[str, nn.Module],
    before: Callable[[str, Any, Any], Tensor | None] | None = None,
    after: Callable[[str, Any, Any, Any], Tensor | None] | None = None,
) -> Iterator[None]:
    """Calls `before(path, layer, x)` before each layer and `after(path, layer, x, y)` after it.

    A tensor that they return replaces the input x or the output y. The hooks are gone afterwards, also after an
    exception.
    """

    def ahead(path: str) -> Callable[[Any, Any], Any]:
        def hook(layer: Any, inputs: Any) -> Any:
            assert before is not None
            new = before(path, layer, inputs[0])
            return None if new is None else (new, *inputs[1:])

        return hook

    def behind(path: str) -> Callable[[Any, Any, Any], Any]:
        def hook(layer: Any, inputs: Any, output: Any) -> Any:
            assert after is not None
            return after(path, layer, inputs[0], output)

        return hook

    handles = []
    try:
        for path, layer in layers.items():
            if before is not None:
                handles.append(layer.register_forward_pre_hook(ahead(path)))
            if after is not None:
                handles.append(layer.register_forward_hook(behind(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(layers: Mapping[str, nn.Module], reading: Callable[[Any, Tensor], T]) -> Iterator[dict[str, T]]:
    """Collects `reading(layer, its input)` of every layer, by path, at each forward pass inside the with block."""
    readings: dict[str, T] = {}

    def read(path: str, layer: Any, x: Tensor) -> None:
        readings[path] = reading(layer, x)

    with hooked(layers, before=read):
        yield readings


@contextmanager
def observed(model: nn.Module) -> Iterator[None]:
    """The net in evaluation mode inside the block; afterwards every module has its own mode again.

    Raises:
        ValueError: hooks of the net would not run, because it is scripted or compiled.
    """
    refuse_compiled(model)
    with in_evaluation(model):
        yield


def find_layers(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """The layers at some paths of a net.

    Raises:
        ValueError: one is not there; the message lists those that are.
    """
    refuse_compiled(model)
    modules = {path: module for path, module in model.named_modules() if path}
    paths = list(paths)
    if not paths:
        raise ValueError(f'Name at least one layer of {type(model).__name__}: its layers are {", ".join(modules)}.')
    for path in paths:
        if path not in modules:
            raise ValueError(f'{type(model).__name__} has no layer {path!r}; its layers are {", ".join(modules)}.')
    return {path: modules[path] for path in paths}


def require_run(layers: Iterable[str], seen: Iterable[str]) -> None:
    """Raises ValueError for a layer that the forward pass did not call."""
    missing = sorted({*layers} - {*seen})
    if missing:
        raise ValueError(f'Layer {missing[0]!r} does not run in the forward pass.')


def feature_map(path: str, x: Any) -> Tensor:
    """A layer's input or output, checked to be a batch of maps, (N, C, H, W).

    Raises:
        ValueError: it is not.
    """
    if not isinstance(x, Tensor) or x.dim() != 4:
        raise ValueError(f'Layer {path!r} has no map of shape (N, C, H, W) there, but {described(x)}.')
    return x


def described(x: Any) -> str:
    """A wrong argument in words, for messages."""
    return f'a tensor of shape {tuple(x.shape)} and {x.dtype}' if isinstance(x, Tensor) else type(x).__name__


def require_images(images: Any) -> None:
    """Raises ValueError unless the argument is a batch of images, (N, 3, H, W)."""
    if not isinstance(images, Tensor) or images.dim() != 4 or 0 in images.shape[1:]:
        raise ValueError(f'The images must be a tensor of shape (N, 3, H, W), but got {described(images)}.')


def run(model: nn.Module, images: Tensor) -> Any:
    """The net's output for a batch of images.

    Raises:
        ValueError: they are no such batch, or the net does not take their dtype or device.
    """
    require_images(images)
    try:
        return model(images)
    except RuntimeError as error:  # checked afterwards: a net may convert or move its images itself
        own = next(((p.dtype, p.device) for p in model.parameters()), None)
        if own in (None, (images.dtype, images.device)):
            raise
        theirs = f'the images are {images.dtype} on {images.device}'
        raise ValueError(f'{type(model).__name__} is {own[0]} on {own[1]}, {theirs}: {error}') from error


def refuse_compiled(model: nn.Module) -> None:
    """Raises ValueError where the hooks of a net would not run, or its layers are fused."""
    for module in model.modules():
        what = None
        if isinstance(module, torch.jit.ScriptModule):
            what = 'scripted'
        elif '_orig_mod' in module._modules or getattr(module, '_compiled_call_impl', None) is not None:
            what = 'compiled'
        elif isinstance(module, FusedNet):
            what = 'fused'
        if what is not None:
            raise ValueError(f'Hooks do not run in a {what} net: analyse the net before that.')
