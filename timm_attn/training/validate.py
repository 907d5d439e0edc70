"""The accuracy of a checkpoint, or of a training's last epoch, on images."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from timm_attn.data.datasets import class_names
from timm_attn.training import splits
from timm_attn.training.engine import autocast_of
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import usable_cores, validation_loader
from timm_attn.training.processes import joined
from timm_attn.training.recipe import Recipe, import_modules, recipe_of, usable
from timm_attn.weights.trained import input_settings, read_training_file, trained_model

_logger = logging.getLogger(__name__)

_PLAIN: dict[str, Any] = dict(lr=0.1, workers=0)  # without a recipe
# Keys that only the user may set, not a file: imports, data, downloads and the device.
_USERS = (
    'dataset', 'dataset_download', 'train_split', 'val_split', 'class_map', 'input_key', 'target_key', 'device',
    'device_modules',
)  # fmt: skip
_MOST_PIXELS = 256 * 224 * 224  # of a batch, by a recipe in a file


def validate(
    model_name: str,
    data_dir: Path,
    *,
    weights: Path | None = None,
    recipe: Recipe | None = None,
    changes: Mapping[str, Any] | None = None,
    split: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    skip_unreadable: bool = False,
    ema: bool = True,
) -> dict[str, float]:
    """Loss, top-1, top-5 and the number of images of a model on a split; under torchrun every process calls this.

    Args:
        weights: a checkpoint of the runner or of timm's train.py, whose model options then count, or weights in any
            layout that `convert_state_dict` knows; without them the model's pretrained weights.
        recipe: says what is read and how it is prepared; without one, the recipe in the checkpoint if it has one, but
            for what only the user may say (a dataset of timm's, a class map, modules to import, the device), and else
            the model's own cfg.
        changes: values instead of the recipe's.
        split: such as 'validation'; by default the recipe's.
        workers: by default the recipe's, and none without one.
        skip_unreadable: leave images that cannot be read out of the count, instead of stopping.
        ema: take the averaged weights where the checkpoint has them.

    Raises:
        FileNotFoundError: the weights or the images are not there.
        ValueError: the weights are of another model, or of another number of classes than the images have.
    """
    content = {} if weights is None else read_training_file(weights)
    users = {**(vars(recipe) if recipe else {}), **(changes or {})}
    if recipe is None:
        recipe = _recipe_in(content, weights, changes or {})
    recipe = recipe_of({**vars(recipe), **(changes or {})}, 'What the recipe is changed to')
    import_modules(recipe)
    if workers is not None:
        recipe = replace(recipe, workers=workers)
    with joined(device or recipe.device) as processes:
        with splits.downloading(recipe, processes):
            tested_on = splits.open_split(recipe, data_dir, split or recipe.val_split, skip_unreadable=skip_unreadable)
        model, said_input, trained_on = _model(model_name, recipe, users, content, weights, ema)
        classes = class_names(tested_on)
        if classes is not None and len(classes) != model.num_classes:
            raise ValueError(
                f'{weights or model_name} has {model.num_classes} classes, but {data_dir} has {len(classes)}.'
            )
        if classes and trained_on and classes != trained_on:
            differing = sorted({*classes} ^ {*trained_on}) or 'their order'
            raise ValueError(f'{data_dir} has other classes than {weights} was trained on: {differing}.')
        model.to(processes.device, memory_format=torch.channels_last if recipe.channels_last else None)
        with usable():
            config = resolve_data_config(input_settings(users, said_input), model=model)
        loader = validation_loader(tested_on, config, recipe, processes)
        metrics = evaluate(model, loader, processes, autocast_of(recipe, processes.device), recipe.channels_last)
        if not math.isfinite(metrics['loss']):
            raise ValueError(f'{weights or model_name} gives a loss of {metrics["loss"]}: its weights are damaged.')
        return {**metrics, 'unreadable': splits.unreadable(tested_on, processes)}


def _recipe_in(content: Mapping[str, Any], file: Path | None, changes: Mapping[str, Any]) -> Recipe:
    """The recipe in a checkpoint, without what only the user may say.

    Raises:
        ValueError: it is no recipe.
    """
    said = content.get('recipe') or {}
    recipe = recipe_of({**_PLAIN, **said}, f'The recipe in {file}')
    defaults = vars(recipe_of(_PLAIN, 'The default'))
    ignored = [key for key in _USERS if vars(recipe)[key] != defaults[key] and key not in changes]
    if named := [f'{key}={vars(recipe)[key]}' for key in ignored if key not in ('device', 'device_modules')]:
        _logger.warning(f'{file} says {", ".join(named)}, which only your own recipe may say: see --config and --set.')
    _, height, width = recipe.input_size or (3, 224, 224)
    batch_size = min(recipe.validation_batch_size or recipe.batch_size, max(1, _MOST_PIXELS // (height * width)))
    bounds: dict[str, Any] = dict(
        workers=min(recipe.workers, usable_cores()), validation_batch_size=batch_size, model_kwargs={}
    )
    return replace(recipe, **{key: defaults[key] for key in ignored}, **bounds)


def _model(
    name: str,
    recipe: Recipe,
    users: Mapping[str, Any],
    content: Mapping[str, Any],
    file: Path | None,
    ema: bool,
) -> tuple[Any, Mapping[str, Any], list[str] | None]:
    """The model, and, where a file says them, its input and the classes it was trained with."""
    if file is None:
        chans = recipe.input_size[0] if recipe.input_size else 3
        with usable():
            return timm.create_model(name, pretrained=True, in_chans=chans, **recipe.model_kwargs), {}, None
    trained = trained_model(content, name, file, dict(model_kwargs=users.get('model_kwargs')), ema=ema)
    return trained.model, trained.input, trained.class_names
