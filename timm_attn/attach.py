"""Puts an attention layer at its sites in a built net."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from timm_attn.attention import ATTENTION, Attention, AttentionLayer
from timm_attn.blocks import SLOTTED, Slot

ModelT = TypeVar('ModelT', bound=nn.Module)


def attach(
    model: ModelT,
    attention: str | Attention,
    *,
    stages: Sequence[str] = (),
    attn_kwargs: Mapping[str, Any] | None = None,
) -> ModelT:
    """Fills the attention's sites of a net, in place, and returns the net.

    Args:
        model: a net built of timm's ResNet or MobileNetV2 blocks (blocks of other kinds in it stay as they are), or of
            blocks with slots of their own; it keeps its weights, its device and its dtype.
        attention: a name of ATTENTION, or a row.
        stages: the stages (paths of nn.Sequential) that an attention of site 'stage' closes.
        attn_kwargs: the layer's options, over the row's defaults.

    Raises:
        ValueError: the attention is unknown, the net offers none of its sites, or a site is already taken; the net is
            then as it was.
        TypeError: an option that the layer does not have.
    """
    row = find_attention(attention)
    options = layer_options(row, attn_kwargs)
    if row.site == 'stage':
        _close_stages(model, row, stages, options)
    else:
        _fill_slots(model, row, options)
    return model


def attention_layers(model: nn.Module) -> dict[str, AttentionLayer]:
    """The attention layers of a net by their paths, in the order of its modules."""
    return {path: module for path, module in model.named_modules() if isinstance(module, AttentionLayer)}


def find_attention(attention: str | Attention) -> Attention:
    """The row of a name; a row is its own."""
    if isinstance(attention, Attention):
        return attention
    if attention not in ATTENTION:
        raise ValueError(f'Unknown attention {attention!r}: choose from {", ".join(ATTENTION)}.')
    return ATTENTION[attention]


def layer_options(row: Attention, attn_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row's defaults under attn_kwargs, after a check of the names against the layer's constructor."""
    known = [n for n in inspect.signature(row.layer).parameters if n not in ('channels', 'device', 'dtype')]
    for name in attn_kwargs or {}:
        if name not in known:
            valid = f'choose from {", ".join(known)}' if known else 'it has none'
            raise TypeError(f'{row.title} has no option {name!r} (attn_kwargs): {valid}.')
    return {**row.defaults, **(attn_kwargs or {})}


def _fill_slots(model: nn.Module, row: Attention, options: Mapping[str, Any]) -> None:
    """A layer in the slot of every block; nothing is changed unless all of them can be filled."""
    filled = []
    for block in model.modules():
        cls: Any = SLOTTED.get(type(block), type(block))
        if not hasattr(cls, 'slots'):
            continue
        slot: Slot = cls.slots[row.site]
        taken = getattr(block, slot.attr, None)
        if taken is not None:
            raise ValueError(f'The slot {slot.attr!r} of {type(block).__name__} already holds {taken}.')
        filled.append((block, cls, slot, _layer_for(block.get_submodule(slot.conv), row, options)))
    if not filled:
        known = ', '.join(cls.__name__ for cls in SLOTTED)
        raise ValueError(f'{type(model).__name__} has no block with a {row.site!r} site; known blocks: {known}.')
    for block, cls, slot, layer in filled:
        block.__class__ = cls  # the same modules and keys, and a forward that visits the slots
        for other in cls.slots.values():
            if not hasattr(block, other.attr):
                setattr(block, other.attr, None)
        setattr(block, slot.attr, layer.train(block.training))


def _close_stages(model: nn.Module, row: Attention, stages: Sequence[str], options: Mapping[str, Any]) -> None:
    """A layer as the last child of every stage; nothing is changed unless all of them can be closed."""
    if not stages:
        raise ValueError(f'{row.title} closes stages: name them, for example stages=("layer1", "layer2").')
    closed = []
    for path in (stages,) if isinstance(stages, str) else stages:
        stage = dict(model.named_modules()).get(path)
        if not isinstance(stage, nn.Sequential):
            raise ValueError(f'Stage {path!r} must be an nn.Sequential of the net, but is {type(stage).__name__}.')
        if isinstance(stage[-1], AttentionLayer):
            raise ValueError(f'Stage {path!r} already ends with {type(stage[-1]).__name__}.')
        closed.append((stage, _layer_for(_last_conv(stage), row, options)))
    for stage, layer in closed:
        stage.append(layer.train(stage.training))


def _last_conv(stage: nn.Sequential) -> nn.Module:
    """The convolution whose channels leave the stage: its last, attention layers left out."""
    inside = tuple(f'{path}.' for path in attention_layers(stage))
    convs = [m for path, m in stage.named_modules() if isinstance(m, nn.Conv2d) and not path.startswith(inside)]
    return convs[-1]


def _layer_for(conv: nn.Module, row: Attention, options: Mapping[str, Any]) -> nn.Module:
    """The layer for a convolution's output, where that convolution lives."""
    assert isinstance(conv, nn.Conv2d)
    return row.layer(conv.out_channels, **options, device=conv.weight.device, dtype=conv.weight.dtype)
