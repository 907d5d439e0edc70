"""The model name `with_attention`: attach by name, so that scripts and saved files rebuild the net."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, model_entrypoint, register_model
from torch import nn

from timm_attn import weights
from timm_attn.attach import attach
from timm_attn.backbones.features import GetterFeatures
from timm_attn.weights.metadata import MODEL

__all__: list[str] = []  # register_model adds the name
NAME = 'with_attention'


def register() -> None:
    """Registers the name with timm.

    Raises:
        RuntimeError: another package registered it.
    """
    if is_model(NAME):
        if model_entrypoint(NAME).__module__ != __name__:
            raise RuntimeError(f'{NAME!r} is already registered by {model_entrypoint(NAME).__module__}.')
        return
    register_model(with_attention)


def _without_source(backbone: str) -> dict[str, Any]:
    """The cfg of a backbone without weights and name."""
    cfg = timm.get_pretrained_cfg(backbone)
    fields = {} if cfg is None else cfg.to_dict()
    dropped = (*weights.NO_SOURCE, 'source', 'tag', 'custom_load', 'architecture')
    return {key: value for key, value in fields.items() if key not in dropped}


default_cfgs = generate_default_cfgs({NAME: _without_source('resnet18')})


def with_attention(
    pretrained: bool = False,
    *,
    backbone: str = 'resnet18',
    attention: str = 'eca',
    at: str | Sequence[str] | None = None,
    replace: bool = False,
    stages: str | Sequence[str] = (),
    start: Any = None,
    attn_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A registered backbone with attention, by name: the arguments of timm_attn.attach, and timm's model arguments.

    pretrained=True loads the backbone's own weights, unless the cfg or its overlay names a checkpoint of the whole net.

    Raises:
        ValueError: the backbone is no registered name, or see attach.
    """
    _require_registered(backbone)
    own = _without_source(backbone)
    file = weights.check_config(kwargs, own)
    cfg = weights.cfg_fields(kwargs.pop('pretrained_cfg', None))
    overlay = kwargs.pop('pretrained_cfg_overlay', None) or {}
    given = {**(cfg if _has_source(cfg) else {}), **overlay}  # timm's scripts hand over the cfg of the name alone
    whole = _has_source(given)
    places: dict[str, Any] = dict(at=at, replace=replace, stages=stages, attn_kwargs=attn_kwargs)
    features: dict[str, Any] = {'feature_cls': GetterFeatures, **kwargs.pop('feature_cfg', {})}
    all_features = 'out_indices' not in {**features, **kwargs}

    def build(**options: Any) -> nn.Module:
        net = timm.create_model(
            backbone, pretrained=pretrained and not whole, cache_dir=kwargs.get('cache_dir'), **options
        )
        if all_features:
            features['out_indices'] = tuple(range(len(getattr(net, 'feature_info', ()))))
        return attach(net, attention, start=None if whole else start, **places)

    if file:
        said = {key: value for key, value in kwargs.items() if key in MODEL}
        weights.check_build(partial(build, **said, device='meta'), 'net', given, file)
    if whole:
        kwargs.update(weights.builder_arguments(None, kwargs))
    cfg = {**own, **given, 'architecture': NAME}
    model: Any = build_model_with_cfg(
        build, NAME, pretrained and whole, pretrained_cfg=cfg, feature_cfg=features, **kwargs
    )
    model._model_args = {}  # timm's factory adds those of this call; the backbone's are not of this name
    return model


def _require_registered(backbone: str) -> None:
    name = backbone.partition('.')[0] if isinstance(backbone, str) else ''
    if name == NAME or not is_model(name):
        raise ValueError(
            f'backbone must be a model that timm or timm_attn registers, such as convnext_tiny, but is {backbone!r}.'
        )


def _has_source(cfg: Mapping[str, Any]) -> bool:
    return any(cfg.get(source) for source in weights.SOURCES)
