"""What a warm start takes: checks of the model, the plain net's weights and the images."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn.attention import AttentionLayer

Layers = Mapping[str, AttentionLayer]
_MOST, _LEAST = 256, 16  # images


def check_model(model: nn.Module, layers: Layers) -> None:
    """Raises a ValueError for a net that has no attention, or whose weights cannot be written."""
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, '_orig_mod'):
        raise ValueError(f'{name} is scripted or compiled: start the net before that.')
    if not layers:
        raise ValueError(f'{name} has no attention layers of this package: build one such as resnet50_se.')
    refuse_meta(model)


def refuse_meta(model: nn.Module) -> None:
    """Raises a ValueError for a net without values."""
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(f'{type(model).__name__} is on the meta device and has no values: build it on a real one.')


def plain_weights(model: nn.Module, layers: Layers, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain net's weights under the model's keys, which have `module.` where attach has wrapped a module.

    Raises:
        ValueError: they are another net's, of other classes, or not finite.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f'plain must be a net or its state dict, but is {type(state).__name__}.')
    odd = next((key for key in state if not isinstance(key, str)), None)
    if odd is not None:
        raise ValueError(f'plain must be a net or its state dict, but has the key {odd!r}, which is no text.')
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(_inside(layers))}
    wrapped = _wrapped(model, own)
    state = {key if wrapped.get(key, key) in state else wrapped[key]: value for key, value in state.items()}
    head = {key for key in own if key.startswith(_classifier(model))}
    absent, besides = (_without_counts(keys) for keys in (own.keys() - state.keys(), state.keys() - own.keys()))
    if absent == head:
        absent = set()
    if absent or besides:
        raise ValueError(
            f'The weights are not those of the plain {type(model).__name__}: they lack {_few(absent)} and have '
            f'{_few(besides)} besides; timm_attn.convert_state_dict reads other layouts.'
        )
    weights = {key: value for key, value in state.items() if key in own}
    for key, value in weights.items():
        shape = tuple(getattr(value, 'shape', ()))
        if not isinstance(value, Tensor) or shape != own[key].shape:
            if key in head and isinstance(value, Tensor) and shape:
                raise ValueError(
                    f'The plain net has {shape[0]} classes, and the model {own[key].shape[0]}: leave {_few(head)} out '
                    'of the state dict, and the model keeps its own classifier.'
                )
            raise ValueError(f"The weights are another net's: {key} is {shape}, but must be {tuple(own[key].shape)}.")
        if own[key].is_floating_point() and not value.is_floating_point():
            raise ValueError(f'The weights are no floating-point numbers: {key} is {_form(value)}.')
        if value.is_meta:
            raise ValueError(f'The weights are on the meta device and have no values: {key}.')
        if not value.isfinite().all():
            raise ValueError(f'The weights are not finite: {key}.')
    return weights


def refuse_trained(model: nn.Module, layers: Layers, weights: Mapping[str, Tensor]) -> None:
    """Raises a ValueError for attention that has learned, as far as the norms that count their batches tell."""
    state = model.state_dict()
    counted = [key for key, value in state.items() if key.endswith('num_batches_tracked') and value > 0]
    by_attention = [key for key in counted if key.startswith(_inside(layers))]
    others = not all(torch.equal(state[key], value.to(state[key])) for key, value in weights.items())
    if by_attention or (counted and others):
        raise ValueError(
            f'The model was trained ({(by_attention or counted)[0]} is above 0), and a warm start throws away what its '
            'attention learned: build it anew.'
        )


def image_batch(model: Any, images: Tensor | Iterable[Any]) -> Tensor:
    """The first images of a batch or a loader, (N, C, H, W).

    Raises:
        ValueError: they are too few, not finite, or not as the net takes them.
    """
    parts: list[Tensor] = []
    for item in [images] if isinstance(images, Tensor) or not isinstance(images, Iterable) else images:
        part: Any = item[0] if isinstance(item, (list, tuple)) and item else item
        is_batch = isinstance(part, Tensor) and part.ndim == 4 and part.is_floating_point()
        if not is_batch or (parts and part.shape[1:] != parts[0].shape[1:]):
            raise ValueError(f'images must be float batches (N, C, H, W) of one size, but one is {_form(part)}.')
        parts.append(part)
        if sum(map(len, parts)) >= _MOST:
            break
    count = sum(map(len, parts))
    if count < _LEAST:
        raise ValueError(f'images must be at least {_LEAST}, for statistics of their maps, but are {count}.')
    batch = torch.cat(parts)[:_MOST]
    channels = input_channels(model)
    if batch.shape[1] != channels:
        raise ValueError(f'images must have {channels} channels, as the net takes them, but are {_form(batch)}.')
    if not batch.isfinite().all():
        raise ValueError('images must be finite, but some values are not.')
    return batch


def input_channels(model: Any) -> int:
    """The channels of a net's images: what it says, else what its first convolution takes."""
    said: int | None = getattr(model, 'in_chans', None)
    return said or next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels


def _inside(layers: Layers) -> tuple[str, ...]:
    return tuple(f'{path}.' for path in layers)


def _wrapped(model: nn.Module, own: Iterable[str]) -> dict[str, str]:
    """The keys of modules that are wrapped, by those of the plain net."""
    wrappers = [(f'{path}.{m.wraps}.', f'{path}.') for path, m in model.named_modules() if hasattr(type(m), 'wraps')]
    names = {}
    for key in own:
        plain = key
        for inside, path in sorted(wrappers, reverse=True):  # inner ones first
            if plain.startswith(inside):
                plain = path + plain.removeprefix(inside)
        if plain != key:
            names[plain] = key
    return names


def _classifier(model: Any) -> tuple[str, ...]:
    """The beginnings of the keys of a net's classifier."""
    head = model.get_classifier() if hasattr(model, 'get_classifier') else None
    return tuple(f'{path}.' for path, module in model.named_modules() if module is head and path)


def _few(keys: Iterable[str]) -> str:
    first, *rest = sorted(keys) or ['no key']
    return ', '.join([first, *rest[:2]]) + (f' and {len(rest) - 2} more' if len(rest) > 2 else '')


def _without_counts(keys: Iterable[str]) -> set[str]:
    """Without those of the batches that norms counted, which frozen norms do not have."""
    return {key for key in keys if not key.endswith('num_batches_tracked')}


def _form(x: Any) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    return f'{str(x.dtype).removeprefix("torch.")} {tuple(x.shape)}'
