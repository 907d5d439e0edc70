"""Puts attention layers into a built net."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from timm_attn.attach.blocks import FAMILIES, SLOTTED
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
        model: a net of timm's ResNet, MobileNet, EfficientNet or DenseNet families (blocks of other kinds in it stay
            as they are) or of this package; it keeps its weights, its device and its dtype.
        attention: a name of ATTENTION, or a row.
        stages: the stages (paths of nn.Sequential) that an attention of site 'stage' closes; none for a net whose
            blocks have slots for it (DenseNet).
        attn_kwargs: the layer's options, over the row's defaults. The zoo's backbones have some of their own: SimAM on
            ImageNet nets dict(e_lambda=0.1).

    Raises:
        ValueError: the attention is unknown, the net has no place for it, or a place is taken, as in nets that have SE
            already; the net is unchanged then.
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
    """The row of a name; a row is returned as it is."""
    if isinstance(attention, Attention):
        return attention
    if attention not in ATTENTION:
        raise ValueError(f'Unknown attention {attention!r}: choose from {", ".join(ATTENTION)}.')
    return ATTENTION[attention]


def layer_options(row: Attention, attn_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row's defaults, overridden by attn_kwargs, whose names are checked against the layer's constructor."""
    known = [n for n in inspect.signature(row.layer).parameters if n not in ('channels', 'device', 'dtype')]
    for name in attn_kwargs or {}:
        if name not in known:
            valid = f'choose from {", ".join(known)}' if known else 'it has none'
            raise TypeError(f'{row.title} has no option {name!r} (attn_kwargs): {valid}.')
    return {**row.defaults, **(attn_kwargs or {})}


def _fill_slots(model: nn.Module, row: Attention, options: Mapping[str, Any]) -> None:
    """Puts a layer into every slot of the site, or changes nothing if one cannot be filled."""
    filled = []
    for path, block in model.named_modules():
        cls: Any = SLOTTED.get(type(block), type(block))
        for slot in getattr(cls, 'slots', ()):
            if slot.site != row.site:
                continue
            taken = getattr(block, slot.attr, None)
            if taken is not None:
                raise ValueError(
                    f'{path}: the slot {slot.attr!r} of {type(block).__name__} already holds {type(taken).__name__}. '
                    'Nets that have SE or another attention there (seresnet50) are refused: use the plain net '
                    '(resnet50).'
                )
            filled.append((block, cls, slot, _layer(row, options, block.get_submodule(slot.source))))
    if not filled:
        raise ValueError(f'{type(model).__name__} has no place for {row.title}. {FAMILIES[row.site]}')
    for block, cls, slot, layer in filled:
        block.__class__ = cls  # the same modules and keys, a forward with the slots
        for other in cls.slots:
            if not hasattr(block, other.attr):
                setattr(block, other.attr, None)
        setattr(block, slot.attr, layer.train(block.training))


def _close_stages(model: nn.Module, row: Attention, stages: Sequence[str], options: Mapping[str, Any]) -> None:
    """Appends a layer to every stage, or changes nothing if one cannot take it."""
    closed = []
    modules = dict(model.named_modules())
    for path in dict.fromkeys((stages,) if isinstance(stages, str) else stages):
        if path not in modules:
            valid = ', '.join(name for name, module in modules.items() if name and isinstance(module, nn.Sequential))
            raise ValueError(f'{type(model).__name__} has no stage {path!r}: choose from {valid or "none"}.')
        stage = modules[path]
        if not isinstance(stage, nn.Sequential):
            raise ValueError(f'Stage {path!r} must be an nn.Sequential of the net, but is {type(stage).__name__}.')
        if isinstance(stage[-1], AttentionLayer):
            raise ValueError(f'Stage {path!r} already ends with {type(stage[-1]).__name__}.')
        closed.append((stage, _layer(row, options, _last_conv(path, stage), _feature_channels(model, path))))
    for stage, layer in closed:
        stage.append(layer.train(stage.training))


def _feature_channels(model: Any, path: str) -> int | None:
    """The channels of a stage that is one of timm's features, else None."""
    infos = getattr(model, 'feature_info', [])
    return next((info['num_chs'] for info in infos if info['module'] == path), None)


def _last_conv(path: str, stage: nn.Sequential) -> nn.Module:
    """The last convolution of a stage, attention layers left out."""
    inside = tuple(f'{name}.' for name in attention_layers(stage))
    convs = [m for name, m in stage.named_modules() if isinstance(m, nn.Conv2d) and not name.startswith(inside)]
    if not convs:
        raise ValueError(f'Stage {path!r} must have a convolution, but has none.')
    return convs[-1]


def _layer(row: Attention, options: Mapping[str, Any], source: Any, channels: int | None = None) -> nn.Module:
    """The layer for the output of a convolution or a norm, on that module's device and in its dtype."""
    if channels is None:
        channels = source.out_channels if isinstance(source, nn.Conv2d) else source.num_features
    return row.layer(channels, **options, device=source.weight.device, dtype=source.weight.dtype)
