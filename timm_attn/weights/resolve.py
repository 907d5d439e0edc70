"""Which checkpoint a call of timm.create_model means, and the arguments with which timm loads it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from timm_attn.weights.convert import short
from timm_attn.weights.manifest import Checkpoint, checkpoints_of, find_checkpoint
from timm_attn.weights.metadata import class_names, input_metadata, model_metadata
from timm_attn.weights.read import read_checkpoint
from timm_attn.weights.store import stored_path
from timm_attn.weights.verify import check_weights, filter_of, verified_path

_logger = logging.getLogger(__name__)

# Where timm finds weights, in a pretrained cfg or an overlay of it, in its order.
SOURCES = ('state_dict', 'file', 'hf_hub_id', 'url')
NO_SOURCE: Mapping[str, None] = MappingProxyType(dict.fromkeys((*SOURCES, 'hf_hub_filename')))  # over those of a cfg
_OWN_FIELDS = ('classifier', 'first_conv', 'label_offset', 'custom_load')  # of a cfg: a file must not change them
_MOST_VALUES = 500_000_000  # of a model from the Hub, whose file has an unknown size
_LEAST_VALUES = 30_000_000  # of a model that is built whatever the size of its file
_HUB_FILENAME = 'model.safetensors'  # timm's default file of a repository


def source_fields(checkpoint: Checkpoint) -> dict[str, str]:
    """The source of a checkpoint in its default cfg, by which timm lists it; timm itself never fetches it."""
    if checkpoint.hub is not None:
        revision = checkpoint.hub.get('revision')
        at = f'@{revision}' if revision else ''
        return {'hf_hub_id': f'{checkpoint.hub["id"]}{at}', 'hf_hub_filename': checkpoint.hub['filename']}
    return {'file': str(stored_path(checkpoint))} if checkpoint.file else {'url': checkpoint.origin['url']}


def check_config(kwargs: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Checks the arguments that timm took from the config.json of `hf-hub:` or `local-dir:`.

    Args:
        own: the fields of the model's own cfg, of which such a file may change those of the input and the classes.

    Returns:
        What to call the file in messages; '' where there is none.

    Raises:
        ValueError: they are not on the allow-list, out of bounds or contradict each other, or the weights are damaged.
    """
    cfg = cfg_fields(kwargs.get('pretrained_cfg'))
    if not cfg.get('source'):
        return ''
    file = f'The config.json of {cfg.get("hf_hub_id") or cfg.get("file")}'
    _check_description(cfg, kwargs.get('pretrained_model_args') or {}, own, file)
    for path in Path(cfg['file']).glob('*.bin') if cfg['source'] == 'local-dir' else ():
        read_checkpoint(path)  # timm opens them itself, without these checks
    return file


def _check_description(cfg: Mapping[str, Any], model_args: Any, own: Mapping[str, Any], file: str) -> None:
    """Raises ValueError for what is not on the allow-list, out of bounds, or contradicts itself or the model's cfg."""
    said = model_metadata(model_args, file)
    model_metadata({'num_classes': cfg.get('num_classes')}, file)
    size = input_metadata(cfg, file).get('input_size')
    class_names(cfg.get('label_names'), file)
    for key in _OWN_FIELDS:
        if cfg.get(key) and cfg[key] != own.get(key):
            raise ValueError(f'{file} has {key} {short(cfg[key])}, but the model has {own.get(key)!r}.')
    for key, value in (('num_classes', cfg.get('num_classes')), ('in_chans', size[0] if size else None)):
        if value is not None and said.get(key, value) != value:
            raise ValueError(f'{file} contradicts itself: {key} is {said[key]} and {value}.')


def check_build(build: Callable[[], nn.Module], what: str, cfg: Any, file: str) -> None:
    """Raises ValueError for a config.json that describes no net, or one much larger than its weights.

    Args:
        build: builds the net that it describes, without storage.
        what: the net, in the message.
    """
    try:
        model = build()
    except (AssertionError, AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f'{file} does not describe a {what}: {" ".join(str(error).split())}') from error
    _check_size(model, cfg, file)


def _check_size(model: nn.Module, cfg: Any, file: str) -> None:
    said = cfg_fields(cfg)
    if said['source'] == 'local-dir':
        sizes = [path.stat().st_size for path in Path(said['file']).iterdir() if path.is_file()]
        most = max(2 * max(sizes), _LEAST_VALUES)
    else:
        most = _MOST_VALUES
    values = sum(tensor.numel() for tensor in model.state_dict().values())
    if values > most:
        raise ValueError(f'{file} builds a model of {values:,} values, more than the {most:,} allowed for its weights.')


def chosen_checkpoint(name: str, kwargs: Mapping[str, Any]) -> Checkpoint | None:
    """The manifest's checkpoint that the builder arguments name; None where they bring a source of the caller's own.

    Raises:
        RuntimeError: there is none of that name or tag.
    """
    cfg = kwargs.get('pretrained_cfg')
    given = {**cfg_fields(cfg), **(kwargs.get('pretrained_cfg_overlay') or {})}
    sources = {source: given[source] for source in SOURCES if given.get(source)}
    if not sources:
        return find_checkpoint(name, cfg if isinstance(cfg, str) else given.get('tag'))
    if 'hf_hub_id' in sources:
        sources['hf_hub_filename'] = given.get('hf_hub_filename') or _HUB_FILENAME
    checkpoint = next((c for c in checkpoints_of(name) if source_fields(c) == sources), None)
    if checkpoint is None and given.get('source'):  # 'hf-hub' or 'local-dir', as in hf-hub:ORG/NAME
        where = ', '.join(str(value) for value in sources.values())
        _logger.warning(f'{where} is not in the manifest of timm_attn: its weights are loaded unverified.')
    return checkpoint


def builder_arguments(checkpoint: Checkpoint | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make timm's builder load the verified file of a checkpoint, or the caller's own source.

    The weights are checked either way, unless the caller has a filter for them or asks for pretrained_strict.

    Raises:
        RuntimeError, OSError: see verified_path.
    """
    overlay = kwargs.get('pretrained_cfg_overlay') or {}
    # else a source of the default cfg would come before the caller's
    if checkpoint is None:
        own = any(overlay.get(source) for source in SOURCES)
        arguments: dict[str, Any] = {'pretrained_cfg_overlay': {**NO_SOURCE, **overlay}} if own else {}
        if not kwargs.keys() & {'pretrained_filter_fn', 'pretrained_strict'}:
            arguments['pretrained_filter_fn'] = check_weights
        return arguments
    file = str(verified_path(checkpoint, kwargs.get('cache_dir')))
    verified = {**overlay, **NO_SOURCE, 'source': '', 'file': file}
    return {'pretrained_cfg_overlay': verified, 'pretrained_filter_fn': filter_of(checkpoint)}


def keep_label_names(model: Any, pretrained: bool, overlay: Mapping[str, Any] | None) -> None:
    """Drops label_names of a built model's pretrained_cfg that are not those of its classifier.

    They name the classes of the checkpoint: a head of another size, or without weights, has other classes, unless the
    caller's overlay names them.
    """
    names = model.pretrained_cfg.get('label_names')
    loaded = pretrained or 'label_names' in (overlay or {})
    if names is not None and not (loaded and len(names) == getattr(model, 'num_classes', None)):
        del model.pretrained_cfg['label_names']


def cfg_fields(cfg: Any) -> dict[str, Any]:
    """The fields of a pretrained cfg: a PretrainedCfg, a mapping, or a tag, which has none."""
    if cfg is None or isinstance(cfg, str):
        return {}
    return dict(cfg) if isinstance(cfg, Mapping) else vars(cfg)
