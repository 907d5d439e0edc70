"""The one join: BACKBONES x ATTENTION as entrypoints and default cfgs of timm's factory."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, model_entrypoint, register_model
from torch import nn

from timm_attn import weights
from timm_attn.attach import attach
from timm_attn.attention import ATTENTION, Attention
from timm_attn.backbones import BACKBONES, Backbone

default_cfgs: dict[str, Any] = {}  # timm reads a module's default_cfgs when one of its functions is registered
__all__ = ['names', 'register']

# Any of these in a pretrained cfg is a source that the caller chose: timm loads it, the manifest stays out of it.
_SOURCES = ('source', 'state_dict', 'file', 'url', 'hf_hub_id')


def names() -> list[str]:
    """The registered names, in the order of the tables."""
    return list(default_cfgs)


def register(
    attention_rows: Mapping[str, Attention] = ATTENTION, backbone_rows: Mapping[str, Backbone] = BACKBONES
) -> None:
    """Registers every pair of the rows whose backbone offers the attention's site, and the plain nets timm lacks.

    Raises:
        RuntimeError: another package registered one of the names.
    """
    fresh = list(_pairs(attention_rows, backbone_rows))
    for name, _, _ in fresh:
        if is_model(name) and model_entrypoint(name).__module__ != __name__:
            raise RuntimeError(f'{name!r} is already registered by {model_entrypoint(name).__module__}.')
    for name, backbone, attention in fresh:
        if not is_model(name):
            _register(name, backbone, attention)


def _pairs(
    attention_rows: Mapping[str, Attention], backbone_rows: Mapping[str, Backbone]
) -> Iterator[tuple[str, Backbone, tuple[str, Attention] | None]]:
    for stem, backbone in backbone_rows.items():
        if backbone.timm is None:
            yield stem, backbone, None
        for key, attention in attention_rows.items():
            if attention.site in backbone.sites:
                yield f'{stem}_{key}', backbone, (key, attention)


def _register(name: str, backbone: Backbone, attention: tuple[str, Attention] | None) -> None:
    entrypoint = _entrypoint(name, backbone, attention)
    untrained = {name: dict(backbone.cfg)}
    trained = {c.full_name: {**backbone.cfg, **c.cfg, 'file': str(c.path)} for c in weights.checkpoints_of(name)}
    default_cfgs.update(generate_default_cfgs({**trained, **untrained}))
    globals()[name] = entrypoint  # pickle and torch.hub find a function by its module and name
    register_model(entrypoint)


def _entrypoint(name: str, backbone: Backbone, attention: tuple[str, Attention] | None) -> Callable[..., nn.Module]:
    def entrypoint(
        pretrained: bool = False, *, attn_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> nn.Module:
        if pretrained:
            kwargs.update(_verified_source(name, kwargs))
        features = {**backbone.features, **kwargs.pop('feature_cfg', {})}
        build = partial(_build, backbone, attention, attn_kwargs)
        model: nn.Module = build_model_with_cfg(build, name, pretrained, feature_cfg=features, **kwargs)
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    entrypoint.__doc__ = _help(name, backbone, attention)
    return entrypoint


def _help(name: str, backbone: Backbone, attention: tuple[str, Attention] | None) -> str:
    what = f'{backbone.title} with {attention[1].title} ({attention[1].paper})' if attention else backbone.title
    tags = ', '.join(c.tag for c in weights.checkpoints_of(name)) or 'none'
    options = 'Takes attn_kwargs, the options of the attention layer, and' if attention else 'Takes'
    return f"{what}. {options} timm's model arguments. Pretrained tags: {tags}."


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


def _verified_source(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The builder arguments that load the manifest's checkpoint, {} where the caller brings a source of their own."""
    cfg, overlay = kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay') or {}
    fields = {} if cfg is None or isinstance(cfg, str) else dict(cfg) if isinstance(cfg, Mapping) else vars(cfg)
    given = {**fields, **overlay}
    sources = {source: given[source] for source in _SOURCES if given.get(source)}
    ours = [{'file': str(checkpoint.path)} for checkpoint in weights.checkpoints_of(name)]  # as in our default cfgs
    if sources and sources not in ours:
        return {}
    checkpoint = weights.find_checkpoint(name, cfg if isinstance(cfg, str) else given.get('tag'))
    file = str(weights.verified_path(checkpoint))
    return dict(pretrained_cfg_overlay={**overlay, 'file': file}, pretrained_filter_fn=weights.check_keys)
