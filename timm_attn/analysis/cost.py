"""The cost of a net's layers: parameters, arithmetic, memory traffic, memory for the backward pass, time."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timm_attn.analysis.hooks import find_layers, observed, record, refuse_compiled, require_images, require_run, run
from timm_attn.analysis.stages import stage_layers
from timm_attn.attention import attention_layers

NET = '(whole net)'


class Cost(NamedTuple):
    """The cost of one layer for a batch, in evaluation mode.

    Args:
        path, kind: the layer's path in the model, and its class.
        shape: of its input, (N, C, H, W).
        params: parameters.
        macs: multiply-accumulates of its convolutions and matrix products; scaling by attention counts nothing.
        moved_bytes: memory traffic, if each of torch's operations reads its inputs and writes its outputs once.
        saved_bytes: what the forward pass keeps for the backward pass, parameters and buffers left out.
        milliseconds: the median time of a forward pass without gradients.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int
    moved_bytes: int
    saved_bytes: int
    milliseconds: float


def cost_report(
    model: nn.Module, images: Tensor, layers: Sequence[str] | None = None, *, repeats: int = 10
) -> list[Cost]:
    """The cost of each attention layer of a net, or of each stage where it has none, and last of the whole net.

    Each layer is measured alone, on the map that it gets in a forward pass of the images, as torch runs it eagerly.

    Args:
        images: (N, 3, H, W), where the model is; their values do not matter.
        layers: the paths of other layers.
        repeats: runs of which the time is the median.

    Raises:
        ValueError: there is no such layer (the message lists them), repeats is not positive, the images are no
            batch for the model, or it is scripted or compiled.
    """
    if repeats < 1:
        raise ValueError(f'repeats must be positive, but got {repeats}.')
    require_images(images)
    if not len(images):
        raise ValueError('The cost of a batch needs at least one image, but got none.')
    refuse_compiled(model)
    chosen = find_layers(model, layers) if layers is not None else attention_layers(model) or stage_layers(model)
    with observed(model):
        with torch.no_grad(), record(chosen, lambda layer, x: x.clone()) as inputs:  # blocks may overwrite their maps
            run(model, images)
        require_run(chosen, inputs)
        measured = {path: (chosen[path], x) for path, x in inputs.items()} | {NET: (model, images)}
        return [Cost(path, type(layer).__name__, *_cost(layer, x, repeats)) for path, (layer, x) in measured.items()]


def _cost(layer: nn.Module, x: Tensor, repeats: int) -> tuple[Any, ...]:
    """The fields of Cost from `shape` on."""
    params = sum(p.numel() for p in layer.parameters())
    with torch.no_grad(), _Traffic() as traffic:  # type: ignore[no-untyped-call]
        layer(x)
    saved = saved_bytes(layer, x, (*layer.parameters(), *layer.buffers()))
    return tuple(x.shape), params, traffic.macs, traffic.moved_bytes, saved, _milliseconds(layer, x, repeats)


class _Traffic(TorchDispatchMode):
    """Counts the operations that torch dispatches; views move nothing."""

    macs = moved_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils.flop_counter import flop_registry  # not at the import of timm_attn, which has to be quick

        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not func.is_view:
            self.moved_bytes += sum(_touched_bytes(t) for t in tree_leaves((args, kwargs, out)))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.macs += count(*args, **kwargs, out_val=out) // 2
        return out


def _touched_bytes(t: Any) -> int:
    """The bytes of a tensor in memory; an expanded dimension counts once."""
    if not isinstance(t, Tensor):
        return 0
    elements = 1
    for size, stride in zip(t.shape, t.stride(), strict=True):
        elements *= size if stride else min(size, 1)
    return elements * t.element_size()


def saved_bytes(run: Callable[[Tensor], Any], x: Tensor, own: Iterable[Tensor] = ()) -> int:
    """The bytes that autograd saves for the backward pass of a call, each storage once, those of `own` left out."""
    not_counted = {t.untyped_storage().data_ptr() for t in own}
    kept: dict[int, torch.UntypedStorage] = {}  # holding them keeps their addresses from being used again

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in not_counted:
            kept[storage.data_ptr()] = storage
        return t

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda t: t):
        output = run(x.detach().clone().requires_grad_().clone())
    del output
    return sum(storage.nbytes() for storage in kept.values())


def _milliseconds(run: Callable[[Tensor], Any], x: Tensor, repeats: int) -> float:
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):  # the first one warms up
            finish(x.device)
            start = time.perf_counter()
            run(x)
            finish(x.device)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def finish(device: torch.device) -> None:
    """Waits until a device has run everything that was queued on it."""
    if device.type != 'cpu':
        torch.accelerator.synchronize(device)
