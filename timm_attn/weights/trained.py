"""Builds models from the checkpoints of a training: weights, options and input settings."""

import argparse
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
from torch import Tensor, nn

from timm_attn.weights.convert import AVERAGED, convert_state_dict, sizes_of
from timm_attn.weights.metadata import INPUT, class_names, input_metadata, model_metadata
from timm_attn.weights.read import read_checkpoint

# Arguments of train.py that are the model's, with our names; the others are in model_kwargs.
_MODEL = {'gp': 'global_pool', 'bn_eps': 'bn_eps'}
_SHAPES = ('num_classes', 'in_chans')  # taken from the tensors' shapes
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
    for key in ('recipe', 'options'):
        if not isinstance(content.get(key, {}), Mapping):
            found = reprlib.repr(content[key])
            raise ValueError(f'The {key} in {path} must be a mapping of keys to values, but is {found}.')
    if not isinstance(content.get('arch', ''), str):
        raise ValueError(f'The arch in {path} must be the name of a model, but is {reprlib.repr(content["arch"])}.')
    return content


def training_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that timm's train.py keeps in its checkpoints, or the recipe that our runner keeps."""
    args = content.get('args')
    values = vars(args) if isinstance(args, argparse.Namespace) else content.get('recipe') or {}
    return {k: v for k, v in values.items() if v is not None}


def input_settings(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """The input settings of recipes or files for timm's resolve_data_config; an earlier source wins."""
    return {key: source[key] for source in reversed(sources) for key in INPUT if source.get(key)}


def model_arguments(file: object, arguments: Mapping[str, Any], *sources: Mapping[str, Any]) -> dict[str, Any]:
    """The model arguments of a file and of the user, apart from those that the tensors' shapes determine.

    Args:
        file: for the messages.
        arguments: of the training, from the file: only those of metadata.MODEL may be there.
        sources: the user's recipes, or mappings like one.

    Raises:
        ValueError: an argument of the file is not allowed, or they contradict each other.
    """
    users = [_of_model(source, 'The recipe') for source in sources]
    also = {key: value for said in reversed(users) for key, value in said.items()}
    found: dict[str, Any] = {}
    for said in (model_metadata(_of_model(arguments, file), file, also), *users):
        for key, value in said.items():
            if key in _SHAPES or key in _ONLY_TRAINING or value in (None, {}):
                continue
            if found.setdefault(key, value) != value:
                raise ValueError(f'The checkpoint was trained with {key} {found[key]}, but got {value}.')
    return found


def _of_model(source: Mapping[str, Any], name: object) -> dict[str, Any]:
    options = source.get('model_kwargs') or {}
    if not isinstance(options, Mapping):
        raise ValueError(f'{name} has model_kwargs {reprlib.repr(options)}, but it must be a mapping.')
    return {**{ours: source.get(theirs) for theirs, ours in _MODEL.items()}, **options}


class Trained(NamedTuple):
    """A model from a file, its name, the arguments that build it, and the file's input settings and class names."""

    model: Any
    name: str
    options: dict[str, Any]
    input: dict[str, Any]
    class_names: list[str] | None


def trained_model(
    content: Mapping[str, Any],
    name: str | None,
    file: Path,
    *sources: Mapping[str, Any],
    ema: bool = True,
    overlay: Mapping[str, Any] | None = None,
) -> Trained:
    """The model of a file's content, with its weights, classes, channels and options.

    Args:
        name: of the model; None takes the one that the file says.
        file: for the messages.
        sources: recipes or arguments of train.py with the user's model arguments.
        ema: take the averaged weights where there are some.
        overlay: of the model's pretrained_cfg.

    Raises:
        ValueError: it is no checkpoint of that model with these options, or sets what a file may not.
    """
    full_name = model_in(content, file, name)
    name = full_name.partition('.')[0]
    arguments = training_arguments(content)
    options = model_arguments(file, arguments, *sources)
    said_input = input_metadata(arguments, file)
    names = class_names(content.get('options', {}).get('class_names'), file)  # of our runner
    averaged = next((content[key] for key in AVERAGED if content.get(key) is not None), None) if ema else None
    plain = {key: value for key, value in content.items() if key not in AVERAGED}
    try:
        state_dict = convert_state_dict(plain if averaged is None else averaged, name, **options)
        sizes = sizes_of(state_dict, options.get('backbone', name))  # of with_attention
        _check_size(timm.create_model(name, device='meta', **{**sizes, **options}), state_dict)
        model: Any = timm.create_model(full_name, pretrained_cfg_overlay=dict(overlay or {}), **{**sizes, **options})
        model.load_state_dict(state_dict, strict=True)
    except (AssertionError, IndexError, KeyError, OverflowError, RuntimeError, TypeError) as error:
        why = ' '.join(str(error).split())
        raise ValueError(f'{file} does not fit {name} with {options}: {why}') from error
    channels = sizes.get('in_chans')
    _check_channels(said_input, channels, file)
    own_size = model.pretrained_cfg.get('input_size')
    if channels and own_size and own_size[0] != channels:
        said_input.setdefault('input_size', (channels, *own_size[1:]))
    model.pretrained_cfg['num_classes'] = model.num_classes  # else timm exports no label_names
    if names and len(names) == model.num_classes:
        model.pretrained_cfg['label_names'] = tuple(names)
    return Trained(model, name, options, said_input, names)


def model_in(content: Mapping[str, Any], file: object, name: str | None = None) -> str:
    """The model of a file, NAME or NAME.TAG, which must be `name` where both are given.

    Raises:
        ValueError: they differ, or neither is given.
    """
    said: str = content.get('arch', '')
    arch, _, tag = said.partition('.')
    is_known = timm.is_model(arch)  # else it is the name of a repository or of a class
    if name is None and not is_known:
        raise ValueError(f'{file} does not say which model it is of: name it with --model.')
    if name is not None and is_known and arch != name.partition('.')[0]:
        raise ValueError(f'{file} is a checkpoint of {arch!r}, not of {name!r}.')
    if name is not None and (not is_known or '.' in name):
        return name
    # a tag has its own input, such as mean and crop
    return said if tag and any(full_name == said for full_name in timm.models.get_arch_pretrained_cfgs(arch)) else arch


def _check_size(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Refuses options of a file that would make a model much larger than its tensors and their storages."""
    wanted = sum(tensor.numel() for tensor in model.state_dict().values())
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state_dict.values()}
    given, held_bytes = sum(tensor.numel() for tensor in state_dict.values()), sum(held.values())
    if wanted > 2 * given or wanted > held_bytes:
        raise RuntimeError(f'the model has {wanted:,} values, the file {given:,} in {held_bytes:,} bytes')


def _check_channels(said: Mapping[str, Any], channels: int | None, file: object) -> None:
    """Raises ValueError where the file's input settings contradict its first convolution."""
    if channels is None:
        return
    size = said.get('input_size')
    if size is not None and size[0] != channels:
        raise ValueError(f'{file} says input_size {tuple(size)}, but its first convolution takes {channels} channels.')
    for key in ('mean', 'std'):
        if len(said.get(key, ())) not in (0, 1, channels):
            raise ValueError(
                f'{file} says {key} {reprlib.repr(said[key])}, but its first convolution takes {channels} channels.'
            )
