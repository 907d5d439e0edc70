"""The accuracy of a checkpoint, or of a training's last epoch, on images."""

import importlib
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_data_config
from timm.models import clean_state_dict
from torch import Tensor

from timm_attn.training import checkpoint, data
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import eval_loader
from timm_attn.training.processes import joined
from timm_attn.training.recipe import Recipe, recipe_of

_PLAIN: dict[str, Any] = dict(lr=0.1)  # nothing of it matters to a validation


def validate(
    model_name: str,
    data_dir: Path,
    *,
    weights: Path | None = None,
    recipe: Recipe | None = None,
    split: str | None = None,
    workers: int = 0,
    device: str | None = None,
    skip_unreadable: bool = False,
) -> dict[str, float]:
    """Loss, top-1, top-5 and the number of images of a model on a split; under torchrun every process calls this.

    Args:
        weights: a .safetensors file, or a checkpoint of the runner or of timm's train.py; without one the model's
            pretrained weights.
        recipe: says what is read and how it is prepared; without one, the recipe in the checkpoint if it has one, and
            else the model's own cfg.
        split: such as 'validation'; by default the recipe's.

    Raises:
        FileNotFoundError: the weights or the images are not there.
        ValueError: the weights are of another model, or of another number of classes than the images have.
    """
    states, trained_by = (None, None) if weights is None else _read(weights)
    recipe = recipe or (recipe_of(trained_by, f'The checkpoint {weights}') if trained_by else Recipe(**_PLAIN))
    for module in recipe.device_modules:
        importlib.import_module(module)
    with joined(device or recipe.device) as processes:
        tested_on = data.open_split(recipe, data_dir, split or recipe.val_split, skip_unreadable=skip_unreadable)
        model: Any = _model(model_name, recipe, states, weights)
        classes = data.class_names(tested_on)
        if classes is not None and len(classes) != model.num_classes:
            raise ValueError(
                f'{weights or model_name} has {model.num_classes} classes, but {data_dir} has {len(classes)}.'
            )
        model.to(processes.device)
        batch_size = recipe.validation_batch_size or recipe.batch_size
        config = resolve_data_config(vars(recipe), model=model)
        loader = eval_loader(tested_on, config, batch_size, workers=workers, processes=processes)
        metrics = evaluate(model, loader, processes)
    return {**metrics, 'images': len(tested_on), 'unreadable': data.unreadable(tested_on)}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The weights in a file, and the recipe by which the runner trained them, if it says so."""
    if path.suffix != '.safetensors':
        state = checkpoint.load(path)
        return clean_state_dict(state['state_dict']), state.get('recipe')
    try:
        return load_file(path), None
    except FileNotFoundError:
        raise FileNotFoundError(f'There is no checkpoint {path}.') from None
    except SafetensorError as error:
        raise ValueError(f'{path} cannot be read as safetensors: {error}.') from error


def _model(name: str, recipe: Recipe, states: dict[str, Tensor] | None, path: Path | None) -> Any:
    chans = recipe.input_size[0] if recipe.input_size else 3
    if states is None:
        return timm.create_model(name, pretrained=True, in_chans=chans, **recipe.model_kwargs)
    model: Any = timm.create_model(name, in_chans=chans, **recipe.model_kwargs)
    head = f'{model.default_cfg["classifier"]}.weight'
    if head in states:
        model.reset_classifier(len(states[head]))
    try:
        model.load_state_dict(states)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if '\n' in str(error) else str(error)
        raise ValueError(f'{path} does not hold weights of {name!r}: {first}') from error
    return model
