"""The one join: BACKBONES x ATTENTION as entrypoints and default cfgs of timm's factory."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    model_entrypoint,
    register_model,
)
from torch import nn

from timm_attn import from_tags, weights
from timm_attn.attach import attach, layer_options
from timm_attn.attention import ATTENTION, Attention
from timm_attn.backbones import BACKBONES, Backbone
from timm_attn.backbones.features import check_out_indices

default_cfgs: dict[str, Any] = {}  # timm reads a module's default_cfgs when one of its functions is registered
__all__ = ['names', 'register']


@dataclass(frozen=True)
class Model:
    """A registered name: its backbone and its attention.

    Args:
        plain: the name of the net without attention, in timm's registry.
        attention: the row, its defaults updated by the backbone's overrides; None for the plain net.
    """

    name: str
    plain: str
    backbone: Backbone
    attention: Attention | None

    def build(
        self, attn_kwargs: Mapping[str, Any] | None, out_indices: int | Sequence[int] | None, **kwargs: Any
    ) -> nn.Module:
        """Builds the plain net and puts the attention into its slots; timm's builder calls it as the model class."""
        if self.attention is None and attn_kwargs is not None:
            raise TypeError(f'A net without attention takes no attn_kwargs, but got {attn_kwargs!r}.')
        net = self.backbone.build(**kwargs)
        check_out_indices(net, out_indices)
        if self.attention is None:
            return net
        return attach(net, self.attention, stages=self.backbone.stages, attn_kwargs=attn_kwargs)

    def options_with(
        self, recorded: Mapping[str, Any], attn_kwargs: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """attn_kwargs for weights that were trained with the recorded ones.

        Raises:
            ValueError: the caller asks for others, with which the weights would load and compute something else.
        """
        asked = attn_kwargs or {}
        if self.attention is not None:
            used = layer_options(self.attention, recorded)
            defaults = inspect.signature(self.attention.layer).parameters
            for option, value in asked.items():
                has = used[option] if option in used else defaults[option].default if option in defaults else value
                if has != value:
                    raise ValueError(
                        f'The checkpoint was trained with {option}={has!r} of {self.attention.title}, but {value!r} '
                        'was asked for (attn_kwargs): leave it out, or build with pretrained=False.'
                    )
        return {**recorded, **asked} or attn_kwargs

    def describe(self, tags: Sequence[str]) -> str:
        """The docstring of its entrypoint."""
        what, options = self.backbone.title, 'Takes'
        if self.attention is not None:
            what = f'{what} with {self.attention.title} ({self.attention.paper})'
            options = 'Takes attn_kwargs, the options of the attention layer, and'
        return f"{what}. {options} timm's model arguments. Pretrained tags: {', '.join(tags) or 'none'}."


_models: dict[str, Model] = {}  # by the names that are registered


def names() -> list[str]:
    """The registered names, in the order of the tables."""
    return list(_models)


def register(
    attention_rows: Mapping[str, Attention] = ATTENTION, backbone_rows: Mapping[str, Backbone] = BACKBONES
) -> None:
    """Registers every pair of the rows whose backbone offers the attention's site, and the plain nets timm lacks.

    A name of ours may be registered again: the same rows change nothing, other rows replace it.

    Raises:
        RuntimeError: another package registered one of the names; then none is registered.
    """
    models = list(_join(attention_rows, backbone_rows))
    for model in models:
        if is_model(model.name) and model_entrypoint(model.name).__module__ != __name__:
            raise RuntimeError(f'{model.name!r} is already registered by {model_entrypoint(model.name).__module__}.')
    published, starts_of = _published(), cache(from_tags.plain_cfgs)
    for model in models:  # a plain net before those that start from it
        if _models.get(model.name) != model:
            starts = starts_of(model.plain) if model.attention is not None else {}
            _register(model, published.get(model.name, []), starts)


def _join(attention_rows: Mapping[str, Attention], backbone_rows: Mapping[str, Backbone]) -> Iterator[Model]:
    for stem, backbone in backbone_rows.items():
        if backbone.timm is None:
            yield Model(stem, stem, backbone, None)
        for key, row in attention_rows.items():
            if row.site in backbone.sites:
                defaults = {**row.defaults, **backbone.overrides.get(key, {})}
                yield Model(f'{stem}_{key}', backbone.timm or stem, backbone, replace(row, defaults=defaults))


def _published() -> dict[str, list[weights.Checkpoint]]:
    """The manifest's records by model name. If it cannot be read, the nets have no weights."""
    published: dict[str, list[weights.Checkpoint]] = {}
    try:
        for checkpoint in weights.checkpoints():
            published.setdefault(checkpoint.name, []).append(checkpoint)
    except RuntimeError as error:
        warnings.warn(f'timm_attn has no pretrained weights: {error}', stacklevel=3)
    return published


def _register(model: Model, published: Sequence[weights.Checkpoint], starts: Mapping[str, PretrainedCfg]) -> None:
    name, entrypoint = model.name, _entrypoint(model)
    listed = [tag for tag, start in starts.items() if start.has_weights]
    entrypoint.__doc__ = model.describe([f'{c.tag} ({c.row.state})' for c in published] + listed)
    cfg = model.backbone.cfg
    trained = {
        c.full_name: {**cfg, **c.cfg, **weights.source_fields(c), 'license': c.license and c.license.lower()}
        for c in published
    }
    # the first star marks the default of timm, which is never a start
    own = {**{f'{key}*': row for key, row in trained.items()}, f'{name}.*': dict(cfg)}
    default_cfgs.update(generate_default_cfgs({**{f'{name}.{tag}': row for tag, row in starts.items()}, **own}))
    globals()[name] = entrypoint  # pickle and torch.hub find a function by its module and name
    if is_model(name):  # one of ours, see register
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', f'Overwriting {name} in registry')
            register_model(entrypoint)
    else:
        register_model(entrypoint)
    _models[name] = model


def _entrypoint(row: Model) -> Callable[..., nn.Module]:
    def entrypoint(
        pretrained: bool = False,
        *,
        tag: str | None = None,
        attn_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        file = weights.check_config(kwargs, row.backbone.cfg)
        if tag is not None:
            kwargs['pretrained_cfg'] = tag
        trained_with: dict[str, Any] = {}
        start = from_tags.plain_tag(kwargs) if pretrained else None
        if start is not None:
            kwargs.update(from_tags.builder_arguments(row.name, row.plain, start, kwargs, attn_kwargs=attn_kwargs))
        elif pretrained:
            checkpoint = weights.chosen_checkpoint(row.name, kwargs)
            # the manifest comes before a config.json on the hub, which nothing verifies
            trained_with = dict(checkpoint.model_args if checkpoint else kwargs.get('pretrained_model_args') or {})
            if checkpoint or trained_with:
                attn_kwargs = row.options_with(trained_with.get('attn_kwargs') or {}, attn_kwargs)
                kwargs = {**trained_with, **kwargs}
                kwargs.pop('attn_kwargs', None)
            kwargs.update(weights.builder_arguments(checkpoint, kwargs))
        features = {**row.backbone.features, **kwargs.pop('feature_cfg', {})}
        if file:
            said = dict(kwargs.get('pretrained_model_args') or {})
            options = said.pop('attn_kwargs', None)
            described = partial(row.build, attn_kwargs or options, None, **{**said, 'device': 'meta'})
            weights.check_build(described, row.name, kwargs.get('pretrained_cfg'), file)
        build = partial(row.build, attn_kwargs, kwargs.get('out_indices') if kwargs.get('features_only') else None)
        model: Any = build_model_with_cfg(build, row.name, pretrained, feature_cfg=features, **kwargs)
        weights.keep_label_names(model, pretrained, kwargs.get('pretrained_cfg_overlay'))
        if trained_with:  # timm writes them into the config.json of a copy
            model._model_args = {**trained_with, **({'attn_kwargs': dict(attn_kwargs)} if attn_kwargs else {})}
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = row.name
    entrypoint.__module__ = __name__
    return entrypoint
