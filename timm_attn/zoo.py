"""The one join: BACKBONES x ATTENTION as entrypoints and default cfgs of timm's factory."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, model_entrypoint, register_model
from torch import nn

from timm_attn import weights
from timm_attn.attach import attach, layer_options
from timm_attn.attention import ATTENTION, Attention
from timm_attn.backbones import BACKBONES, Backbone

default_cfgs: dict[str, Any] = {}  # timm reads a module's default_cfgs when one of its functions is registered
__all__ = ['names', 'register']

_rows: dict[str, tuple[Backbone, tuple[str, Attention] | None]] = {}  # what each name was registered from


def names() -> list[str]:
    """The registered names, in the order of the tables."""
    return list(_rows)


def register(
    attention_rows: Mapping[str, Attention] = ATTENTION, backbone_rows: Mapping[str, Backbone] = BACKBONES
) -> None:
    """Registers every pair of the rows whose backbone offers the attention's site, and the plain nets timm lacks.

    A name of ours may be registered again: the same rows change nothing, other rows replace it.

    Raises:
        RuntimeError: another package registered one of the names; then none is registered.
    """
    pairs = list(_pairs(attention_rows, backbone_rows))
    for name, _, _ in pairs:
        if is_model(name) and model_entrypoint(name).__module__ != __name__:
            raise RuntimeError(f'{name!r} is already registered by {model_entrypoint(name).__module__}.')
    published = _published()
    for name, backbone, attention in pairs:
        if _rows.get(name) != (backbone, attention):
            _register(name, backbone, attention, published.get(name, []))


def _published() -> dict[str, list[weights.Checkpoint]]:
    """The manifest's records by model name. Without a readable manifest the nets are there, but no weights."""
    published: dict[str, list[weights.Checkpoint]] = {}
    try:
        for checkpoint in weights.checkpoints():
            published.setdefault(checkpoint.name, []).append(checkpoint)
    except RuntimeError as error:
        warnings.warn(f'timm_attn has no pretrained weights: {error}', stacklevel=3)
    return published


def _pairs(
    attention_rows: Mapping[str, Attention], backbone_rows: Mapping[str, Backbone]
) -> Iterator[tuple[str, Backbone, tuple[str, Attention] | None]]:
    for stem, backbone in backbone_rows.items():
        if backbone.timm is None:
            yield stem, backbone, None
        for key, attention in attention_rows.items():
            if attention.site in backbone.sites:
                yield f'{stem}_{key}', backbone, (key, attention)


def _register(
    name: str,
    backbone: Backbone,
    attention: tuple[str, Attention] | None,
    published: Sequence[weights.Checkpoint],
) -> None:
    entrypoint = _entrypoint(name, backbone, attention)
    entrypoint.__doc__ = _help(backbone, attention, [c.tag for c in published])
    trained = {c.full_name: {**backbone.cfg, **c.cfg, **weights.source_fields(c)} for c in published}
    default_cfgs.update(generate_default_cfgs({**trained, name: dict(backbone.cfg)}))
    globals()[name] = entrypoint  # pickle and torch.hub find a function by its module and name
    if is_model(name):  # one of ours, see register
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', f'Overwriting {name} in registry')
            register_model(entrypoint)
    else:
        register_model(entrypoint)
    _rows[name] = (backbone, attention)


def _entrypoint(name: str, backbone: Backbone, attention: tuple[str, Attention] | None) -> Callable[..., nn.Module]:
    def entrypoint(
        pretrained: bool = False,
        *,
        tag: str | None = None,
        attn_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        weights.check_config(kwargs)
        if tag is not None:
            kwargs['pretrained_cfg'] = tag
        trained_with: dict[str, Any] = {}
        if pretrained:
            checkpoint = weights.chosen_checkpoint(name, kwargs)
            # the manifest's word comes before that of a config.json on the hub, which nothing verifies
            trained_with = dict(checkpoint.model_args if checkpoint else kwargs.get('pretrained_model_args') or {})
            if checkpoint or trained_with:
                attn_kwargs = _agreed(backbone, attention, trained_with, attn_kwargs, kwargs)
            kwargs.update(weights.builder_arguments(checkpoint, kwargs))
        features = {**backbone.features, **kwargs.pop('feature_cfg', {})}
        build = partial(_build, backbone, attention, attn_kwargs)
        model: Any = build_model_with_cfg(build, name, pretrained, feature_cfg=features, **kwargs)
        if trained_with:  # what timm writes into the config.json of a copy
            model._model_args = {**trained_with, **({'attn_kwargs': dict(attn_kwargs)} if attn_kwargs else {})}
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    return entrypoint


def _agreed(
    backbone: Backbone,
    attention: tuple[str, Attention] | None,
    trained_with: Mapping[str, Any],
    attn_kwargs: Mapping[str, Any] | None,
    kwargs: dict[str, Any],
) -> dict[str, Any] | None:
    """The attention's options that a checkpoint was trained with; its other arguments are put into kwargs.

    Raises:
        ValueError: the caller asks for others: the weights would load and compute something else.
    """
    for key, value in trained_with.items():
        if key != 'attn_kwargs':
            kwargs.setdefault(key, value)
    if attention is None:
        return dict(attn_kwargs) if attn_kwargs is not None else None
    key, row = attention
    recorded = dict(trained_with.get('attn_kwargs') or {})
    used = layer_options(row, {**backbone.overrides.get(key, {}), **recorded})
    defaults = inspect.signature(row.layer).parameters
    for option, value in (attn_kwargs or {}).items():
        has = used[option] if option in used else defaults[option].default if option in defaults else value
        if has != value:
            raise ValueError(
                f'The checkpoint was trained with {option}={has!r} of {row.title}, but {value!r} was asked for '
                '(attn_kwargs): leave it out, or build with pretrained=False.'
            )
    return {**recorded, **(attn_kwargs or {})} or None


def _help(backbone: Backbone, attention: tuple[str, Attention] | None, tags: Sequence[str]) -> str:
    what = f'{backbone.title} with {attention[1].title} ({attention[1].paper})' if attention else backbone.title
    options = 'Takes attn_kwargs, the options of the attention layer, and' if attention else 'Takes'
    return f"{what}. {options} timm's model arguments. Pretrained tags: {', '.join(tags) or 'none'}."


def _build(
    backbone: Backbone,
    attention: tuple[str, Attention] | None,
    attn_kwargs: Mapping[str, Any] | None,
    **kwargs: Any,
) -> nn.Module:
    """What timm's builder takes as the model class: the plain net, then the attention in its slots."""
    if attention is None:
        if attn_kwargs is not None:
            raise TypeError(f'A net without attention takes no attn_kwargs, but got {dict(attn_kwargs)}.')
        return backbone.build(**kwargs)
    key, row = attention
    options = {**backbone.overrides.get(key, {}), **(attn_kwargs or {})}
    return attach(backbone.build(**kwargs), row, stages=backbone.stages, attn_kwargs=options)
