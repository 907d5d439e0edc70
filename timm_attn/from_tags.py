"""`from_` tags: a checkpoint of the plain net as the start of an attention net, `resnet50_eca.from_a1_in1k`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs
from torch import Tensor, nn

from timm_attn import weights
from timm_attn.warm_start import warm_start
from timm_attn.weights.convert import convert_state_dict, sizes_of
from timm_attn.weights.reach import require_reachable

PREFIX = 'from_'
# Arguments of the builder and of the head and stem, which are not those of the net that is folded: it has the plain
# checkpoint's classes and channels, in float32, and timm adapts what comes out of it.
_NOT_OF_THE_FOLD = (
    'pretrained_cfg', 'pretrained_cfg_overlay', 'pretrained_filter_fn', 'pretrained_strict', 'pretrained_model_args',
    'cache_dir', 'features_only', 'out_indices', 'feature_cfg', 'kwargs_filter', 'num_classes', 'in_chans',
    'global_pool', 'device', 'dtype',
)  # fmt: skip


def plain_cfgs(plain: str) -> dict[str, PretrainedCfg]:
    """The default cfg of each `from_` tag: the plain checkpoint's input, classes and licence.

    Only the plain net's default tag has a source, since timm lists every tag with one as pretrained.
    """
    default: Any = timm.get_pretrained_cfg(plain)
    nowhere: Any = weights.NO_SOURCE
    return {
        PREFIX + cfg.tag: cfg if cfg.tag == default.tag else replace(cfg, **nowhere)
        for cfg in get_arch_pretrained_cfgs(plain).values()
        if cfg.tag
    }


def plain_tag(kwargs: Mapping[str, Any]) -> str | None:
    """The plain net's tag that builder arguments ask for by a `from_` tag: as a string, a dict or a PretrainedCfg.

    None where they ask for none, and for a saved copy of such a net, which is folded already.
    """
    cfg = kwargs.get('pretrained_cfg')
    fields = {'tag': cfg} if isinstance(cfg, str) else weights.cfg_fields(cfg)
    tag = fields.get('tag') or ''
    return tag.removeprefix(PREFIX) if tag.startswith(PREFIX) and not fields.get('source') else None


def builder_arguments(name: str, plain: str, tag: str, kwargs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The arguments that make timm's builder load the plain net's checkpoint, folded into the net `name`.

    A file, url or state dict of the caller's is taken for the plain net's.

    Args:
        options: the arguments of the attention.

    Raises:
        RuntimeError: the plain net has no such tag, or its checkpoint cannot be reached.
        ValueError: the caller has a filter for the state dict, in the place of which the fold must be.
    """
    if kwargs.get('pretrained_filter_fn'):
        raise ValueError(f'{name}.{PREFIX}{tag} folds the plain weights: it takes no pretrained_filter_fn.')
    overlay = kwargs.get('pretrained_cfg_overlay') or {}
    sources = {key: overlay[key] for key in weights.NO_SOURCE if overlay.get(key)} or _sources(plain, tag, kwargs)
    of_the_net = {key: value for key, value in kwargs.items() if key not in _NOT_OF_THE_FOLD}

    def fold(state_dict: Mapping[str, Any], model: nn.Module) -> Mapping[str, Tensor]:
        return folded(state_dict, name, plain, {**of_the_net, **options})

    return {
        'pretrained_cfg_overlay': {**overlay, **weights.NO_SOURCE, **sources, 'source': ''},
        'pretrained_filter_fn': fold,
    }


def folded(state_dict: Mapping[str, Any], name: str, plain: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of the net `name` that computes what the plain net with this state dict computes.

    Raises:
        ValueError: it is not of that plain net, or the attention cannot be folded.
    """
    tensors = convert_state_dict(state_dict, plain)
    net = timm.create_model(name, device='cpu', **{**options, **sizes_of(tensors, plain)})
    return warm_start(net, tensors).state_dict()


def _sources(plain: str, tag: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Where the plain net's checkpoint is: a verified file for one of ours, else what timm has."""
    cfg = get_arch_pretrained_cfgs(plain).get(f'{plain}.{tag}')
    if cfg is None:
        valid = ', '.join(plain_cfgs(plain)) or 'none'
        asked = f'Invalid pretrained tag ({PREFIX}{tag})'
        raise RuntimeError(f'{asked}: {plain} has no weights {tag!r}; choose from {valid}.')
    registered = {key: getattr(cfg, key) for key in weights.NO_SOURCE if getattr(cfg, key)}
    fields = weights.cfg_fields(kwargs.get('pretrained_cfg'))
    given = {key: fields[key] for key in weights.NO_SOURCE if fields.get(key)}
    if given and given != registered:
        return given
    checkpoint = next((c for c in weights.checkpoints_of(plain) if c.tag == tag), None)
    if checkpoint is not None:
        return {'file': str(weights.verified_path(checkpoint, kwargs.get('cache_dir')))}
    require_reachable(f'{plain}.{tag}')
    return registered
