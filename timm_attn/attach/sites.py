"""Puts attention layers into a built net."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from timm_attn.attach.closed import refuse_closed
from timm_attn.attach.identity import Started, start_as_identity
from timm_attn.attach.placed import put, record
from timm_attn.attach.spots import At, Skipped, Spot, find_spots
from timm_attn.attention import ATTENTION, Attention, AttentionLayer, attention_layers

ModelT = TypeVar('ModelT', bound=nn.Module)


@torch.inference_mode(False)  # inference tensors cannot be trained later, and have no version counter
def attach(
    model: ModelT,
    attention: str | Attention,
    *,
    at: At | None = None,
    replace: bool = False,
    stages: str | Sequence[str] = (),
    start: Literal['identity'] | None = None,
    example: Tensor | None = None,
    attn_kwargs: Mapping[str, Any] | None = None,
) -> ModelT:
    """Puts attention layers into a net, in place, and returns the net; `placements` tells where they are.

    Args:
        model: a ConvNet of timm or of this package, or any net whose places are named; it keeps its weights, its device
            and its dtype.
        attention: a name of ATTENTION, or a row.
        at: None for the places in timm's blocks that suit the attention (attach/places.py); 'stages' for the end of
            every stage that timm names (feature_info); else modules that return maps, by globs of their paths or by
            their classes.
        replace: puts the layers into the places of the attention that the net has; without it such a net is refused.
        stages: the stages (paths of nn.Sequential) that an attention of site 'stage' closes, instead of `at`.
        start: 'identity' makes the net compute what it did before, see warm_start. With `replace` the layers start at
            the mean gate of the attention that they replace: a warning tells how far the outputs are from what they
            were.
        example: images (N, C, H, W) with which the net runs, and over which gates are averaged; default: one of its own
            input size.
        attn_kwargs: the layer's options, over the row's defaults. The zoo's backbones have some of their own: SimAM on
            ImageNet nets dict(e_lambda=0.1).

    Raises:
        ValueError: the attention is unknown, the net has no place for it, a place is taken, gives no map or runs twice,
            the net is scripted, compiled, quantised, fused or sharded, or cannot start as it was; it is unchanged then.
        TypeError: an option that the layer does not have.
    """
    row = find_attention(attention)
    options = layer_options(row, attn_kwargs)
    if start not in (None, 'identity'):
        raise ValueError(f"start must be None or 'identity', but got {start!r}.")
    if stages and at is not None:
        raise ValueError(f'stages are places already, at={at!r} must be left out.')
    refuse_closed(model)
    skipped: Skipped = {}
    if stages and row.site == 'stage':
        spots = _closed_stages(model, row, (stages,) if isinstance(stages, str) else stages)
    else:
        spots, skipped = find_spots(model, row, at, replace, example)
    layers = [_layer(model, row, options, spot) for spot in spots]
    if start:
        started = start_as_identity(model, spots, layers, lambda: put(spots, layers), example)
    else:
        put(spots, layers)
        started = Started([None] * len(spots), [None] * len(spots), ())
    record(model, spots, layers, started, skipped)
    return model


def find_attention(attention: str | Attention) -> Attention:
    """The row of a name; a row is returned as it is."""
    if isinstance(attention, Attention):
        return attention
    if attention not in ATTENTION:
        raise ValueError(f'Unknown attention {attention!r}: choose from {", ".join(ATTENTION)}.')
    return ATTENTION[attention]


def layer_options(row: Attention, attn_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row's defaults, overridden by attn_kwargs, whose names are checked against the layer's constructor."""
    if not isinstance(attn_kwargs, Mapping | None):
        raise TypeError(f'attn_kwargs must map options to values, such as dict(reduction=4), but is {attn_kwargs!r}.')
    known = [n for n in inspect.signature(row.layer).parameters if n not in ('channels', 'device', 'dtype')]
    for name in attn_kwargs or {}:
        if name not in known:
            valid = f'choose from {", ".join(known)}' if known else 'it has none'
            raise TypeError(f'{row.title} has no option {name!r} (attn_kwargs): {valid}.')
    return {**row.defaults, **(attn_kwargs or {})}


def _closed_stages(model: nn.Module, row: Attention, stages: Sequence[str]) -> list[Spot]:
    """The ends of the named stages, their channels known without a forward pass."""
    spots = []
    modules = dict(model.named_modules())
    for path in dict.fromkeys(stages):
        if path not in modules:
            valid = ', '.join(name for name, module in modules.items() if name and isinstance(module, nn.Sequential))
            raise ValueError(f'{type(model).__name__} has no stage {path!r}: choose from {valid or "none"}.')
        stage = modules[path]
        if not isinstance(stage, nn.Sequential):
            raise ValueError(f'Stage {path!r} must be an nn.Sequential of the net, but is {type(stage).__name__}.')
        if len(stage) and isinstance(stage[-1], AttentionLayer):
            raise ValueError(f'Stage {path!r} already ends with {type(stage[-1]).__name__}.')
        parent, _, name = path.rpartition('.')
        channels = _feature_channels(model, path) or _last_conv(path, stage).out_channels
        spots.append(Spot(path, model.get_submodule(parent), name, stage, channels=channels))
    return spots


def _feature_channels(model: Any, path: str) -> int | None:
    """The channels of a stage that is one of timm's features, else None."""
    infos = getattr(model, 'feature_info', [])
    return next((info['num_chs'] for info in infos if info['module'] == path), None)


def _last_conv(path: str, stage: nn.Sequential) -> nn.Conv2d:
    """The last convolution of a stage, attention layers left out."""
    inside = tuple(f'{name}.' for name in attention_layers(stage))
    convs = [m for name, m in stage.named_modules() if isinstance(m, nn.Conv2d) and not name.startswith(inside)]
    if not convs:
        raise ValueError(f'Stage {path!r} must have a convolution, but has none.')
    return convs[-1]


def _layer(model: nn.Module, row: Attention, options: Mapping[str, Any], spot: Spot) -> nn.Module:
    """The layer for a place, on its neighbours' device and in their dtype."""
    near = (p for m in (spot.old, spot.parent, model) if m is not None for p in m.parameters())
    of = next((p for p in near if p.is_floating_point()), None)
    where = {} if of is None else {'device': of.device, 'dtype': of.dtype}
    return row.layer(spot.channels, **options, **where).train((spot.old or spot.parent).training)
