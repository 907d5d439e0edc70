"""Puts an attention layer at its sites in a built net."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from timm_attn.attach.blocks import SLOTTED
from timm_attn.attention import ATTENTION, Attention, AttentionLayer

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
        stages: the stages (paths of nn.Sequential) that an attention of site 'stage' closes; none for a net whose
            blocks have slots for it (DenseNet).
        attn_kwargs: the layer's options, over the row's defaults. The zoo's backbones have some of their own: SimAM on
            ImageNet nets dict(e_lambda=0.1).

    Raises:
        ValueError: the attention is unknown, the net offers none of its sites, or a site is already taken; the net is
            then as it was.
        TypeError: an option that the layer does not have.
    """
    row = find_attention(attention)
    options = layer_options(row, attn_kwargs)
    if row.site == 'stage' and stages:
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
    """A layer in every slot of the site; nothing is changed unless all of them can be filled."""
    filled = []
    for block in model.modules():
        cls: Any = SLOTTED.get(type(block), type(block))
        for slot in getattr(cls, 'slots', ()):
            if slot.site != row.site:
                continue
            taken = getattr(block, slot.attr, None)
            if taken is not None:
                raise ValueError(f'The slot {slot.attr!r} of {type(block).__name__} already holds {taken}.')
            filled.append((block, cls, slot, _layer(row, options, block.get_submodule(slot.source))))
    if not filled:
        known = ', '.join(cls.__name__ for cls in SLOTTED)
        hint = ' Name the stages to close, such as stages=("layer1", "layer2").' if row.site == 'stage' else ''
        raise ValueError(f'{type(model).__name__} has no block with a {row.site!r} slot; known blocks: {known}.{hint}')
    for block, cls, slot, layer in filled:
        block.__class__ = cls  # the same modules and keys, and a forward that visits the slots
        for other in cls.slots:
            if not hasattr(block, other.attr):
                setattr(block, other.attr, None)
        setattr(block, slot.attr, layer.train(block.training))


def _close_stages(model: nn.Module, row: Attention, stages: Sequence[str], options: Mapping[str, Any]) -> None:
    """A layer as the last child of every stage; nothing is changed unless all of them can be closed."""
    closed = []
    modules = dict(model.named_modules())
    for path in dict.fromkeys((stages,) if isinstance(stages, str) else stages):
        if path not in modules:
            raise ValueError(f'{type(model).__name__} has no stage {path!r}.')
        stage = modules[path]
        if not isinstance(stage, nn.Sequential):
            raise ValueError(f'Stage {path!r} must be an nn.Sequential of the net, but is {type(stage).__name__}.')
        if isinstance(stage[-1], AttentionLayer):
            raise ValueError(f'Stage {path!r} already ends with {type(stage[-1]).__name__}.')
        closed.append((stage, _layer(row, options, _last_conv(stage), _feature_channels(model, path))))
    for stage, layer in closed:
        stage.append(layer.train(stage.training))


def _feature_channels(model: Any, path: str) -> int | None:
    """The channels of a stage that is one of timm's features; others are those of the stage's last convolution."""
    infos = getattr(model, 'feature_info', [])
    return next((info['num_chs'] for info in infos if info['module'] == path), None)


def _last_conv(stage: nn.Sequential) -> nn.Module:
    """The last convolution of a stage, attention layers left out."""
    inside = tuple(f'{path}.' for path in attention_layers(stage))
    convs = [m for path, m in stage.named_modules() if isinstance(m, nn.Conv2d) and not path.startswith(inside)]
    if not convs:
        raise ValueError(f'A stage to close must have a convolution, but it is {stage}.')
    return convs[-1]


def _layer(row: Attention, options: Mapping[str, Any], source: Any, channels: int | None = None) -> nn.Module:
    """The layer for the map of a convolution or a norm, where that module lives."""
    if channels is None:
        channels = source.out_channels if isinstance(source, nn.Conv2d) else source.num_features
    return row.layer(channels, **options, device=source.weight.device, dtype=source.weight.dtype)
