"""Models back from the files that a training leaves: their weights, their options, and the input they are for."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm

from timm_attn.weights.convert import convert_state_dict, sizes_of
from timm_attn.weights.read import read_checkpoint

_EMA = ('state_dict_ema', 'model_ema')
# What the arguments of timm's train.py, or a recipe, say of the input.
_INPUT = ('input_size', 'img_size', 'in_chans', 'mean', 'std', 'interpolation', 'crop_pct')
# What they say of the model, by the names of ours; the rest is in model_kwargs.
_MODEL = {'gp': 'global_pool', 'bn_eps': 'bn_eps'}
_SHAPES = ('num_classes', 'in_chans')  # the tensors' shapes say them
_ONLY_TRAINING = ('drop_rate', 'drop_path_rate', 'drop_block_rate')


def read_training_file(path: Path) -> Mapping[str, Any]:
    """The content of a checkpoint of timm's train.py or of ours, or a state dict in any layout.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is neither.
    """
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    try:
        content = read_checkpoint(path)
    except OSError as error:
        raise ValueError(f'{path} cannot be read as a checkpoint: {error}') from error
    if not isinstance(content.get('recipe', {}), Mapping):
        raise ValueError(f'The recipe in {path} must be a mapping of keys to values, but is {content["recipe"]!r}.')
    return content


def training_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that timm's train.py keeps in its checkpoints, or the recipe that our runner keeps."""
    args = content.get('args')
    values = vars(args) if isinstance(args, argparse.Namespace) else content.get('recipe') or {}
    return {k: v for k, v in values.items() if v is not None}


def input_settings(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """What arguments or recipes say of the input, the first before the others; for timm's resolve_data_config."""
    return {key: source[key] for source in reversed(sources) for key in _INPUT if source.get(key)}


def model_arguments(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """What arguments or recipes say of the model, where the tensors' shapes do not.

    Raises:
        ValueError: they contradict each other.
    """
    found: dict[str, Any] = {}
    for source in sources:
        named = {ours: source.get(theirs) for theirs, ours in _MODEL.items()}
        for key, value in {**named, **(source.get('model_kwargs') or {})}.items():
            if key in _SHAPES or key in _ONLY_TRAINING or value in (None, {}):
                continue
            if found.setdefault(key, value) != value:
                raise ValueError(f'The checkpoint was trained with {key} {found[key]}, but got {value}.')
    return found


class Trained(NamedTuple):
    """A model from a file, the arguments or recipe it was trained with, those that build it, and its classes' names."""

    model: Any
    arguments: dict[str, Any]
    options: dict[str, Any]
    class_names: list[str] | None


def trained_model(
    content: Mapping[str, Any],
    name: str,
    file: Path,
    *sources: Mapping[str, Any],
    ema: bool = True,
    overlay: Mapping[str, Any] | None = None,
) -> Trained:
    """The model of a file's content, with its weights, classes, channels and options.

    Args:
        file: for the messages.
        sources: what else says how the model was built, in recipes or arguments of train.py.
        ema: take the averaged weights where there are some.
        overlay: of the model's pretrained_cfg.

    Raises:
        ValueError: it is no checkpoint of that model with these options.
    """
    arch = str(content.get('arch', name)).partition('.')[0]
    if arch != name and timm.is_model(arch):  # else it is a hub's name, or that of a class
        raise ValueError(f'{file} is a checkpoint of {arch!r}, not of {name!r}.')
    arguments = training_arguments(content)
    options = model_arguments(arguments, *sources)
    averaged = next((content[key] for key in _EMA if key in content), None) if ema else None
    plain = {key: value for key, value in content.items() if key not in _EMA}
    try:
        state_dict = convert_state_dict(plain if averaged is None else averaged, name, **options)
        sizes = sizes_of(state_dict, name)
        model: Any = timm.create_model(name, pretrained_cfg_overlay=dict(overlay or {}), **{**sizes, **options})
        model.load_state_dict(state_dict, strict=True)
    except (RuntimeError, TypeError) as error:
        why = ' '.join(str(error).split())
        raise ValueError(f'{file} does not fit {name} with {options}: {why}') from error
    said = content.get('options')  # of our runner
    return Trained(model, arguments, options, said.get('class_names') if isinstance(said, Mapping) else None)
