"""One forward pass that tells the shapes of a net's maps."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

_SIDE = 224  # pixels of an image for a net that does not say its input size


class Call(NamedTuple):
    """How a module was called: its number of inputs (those of a list one by one), its output, and how often that had
    been written to by then."""

    inputs: int
    output: Any
    version: int


def probe(model: nn.Module, modules: Iterable[nn.Module], example: Tensor | None) -> dict[nn.Module, list[Call]]:
    """The calls of some modules in one forward pass in evaluation, without computing where the net allows it.

    Raises:
        ValueError: the net does not run on the example.
    """
    calls: dict[nn.Module, list[Call]] = {module: [] for module in modules}
    handles = [module.register_forward_hook(_keep(calls), with_kwargs=True) for module in calls]
    try:
        with in_evaluation(model):
            _run(model, example_of(model) if example is None else example, calls)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """The net in evaluation mode inside the block; afterwards every module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def example_of(model: Any) -> Tensor:
    """An image of the net's own input size, (1, C, H, W), of its dtype and on its device."""
    cfg = getattr(model, 'pretrained_cfg', None) or {}
    channels, height, width = cfg.get('input_size') or (3, _SIDE, _SIDE)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    channels = getattr(model, 'in_chans', None) or channels
    return torch.zeros(1, channels, height, width, device=parameter.device, dtype=parameter.dtype)


def layout(output: Any, channels: int | None, last: bool) -> tuple[int, bool] | None:
    """The channels of a map and whether they are its last dimension, (N, H, W, C); None for anything else.

    Args:
        channels: how many there are, where that is known; else the two equal sides of a map tell.
        last: the answer where both can be meant.
    """
    if not isinstance(output, Tensor) or output.dim() != 4:
        return None
    _, first, middle, final = output.shape
    if channels is not None and first != final and channels in (first, final):
        last = channels == final
    elif not first == middle == final:
        last = first == middle
    return (final if last else first), last


def described(output: Any) -> str:
    """What a module returned, in words."""
    if not isinstance(output, Tensor):
        return f'a {type(output).__name__}'
    return f'{"tokens" if output.dim() == 3 else "a tensor"} of shape {tuple(output.shape)}'


def _keep(calls: dict[nn.Module, list[Call]]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        version = output._version if isinstance(output, Tensor) else 0
        inputs = sum(len(arg) if isinstance(arg, list | tuple) else 1 for arg in (*args, *kwargs.values()))
        calls[module].append(Call(inputs, output, version))

    return hook


@torch.no_grad()
def _run(model: nn.Module, example: Tensor, calls: dict[nn.Module, list[Call]]) -> None:
    state = {
        f'{path}.{name}' if path else name: tensor.to('meta')
        for path, module in model.named_modules()  # each once: what is swapped twice is not put back
        for name, tensor in chain(module._parameters.items(), module._buffers.items())
        if tensor is not None
    }
    try:
        functional_call(model, state, (example.to('meta'),), tie_weights=False)
        return
    except Exception:  # tensors that are no buffers, or values that the forward branches on: then with real values
        for seen in calls.values():
            seen.clear()
    try:
        model(example)
    except Exception as error:
        shape, why = tuple(example.shape), ' '.join(str(error).split())
        raise ValueError(
            f'{type(model).__name__} does not run on an image of shape {shape}, pass another as example: {why}'
        ) from error
