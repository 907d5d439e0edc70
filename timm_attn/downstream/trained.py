"""What a training of a downstream task left: its metrics on other samples, and its predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from timm_attn.downstream.loaders import validation_loader
from timm_attn.downstream.recipe import TaskRecipe, task_recipe
from timm_attn.downstream.tasks import task_of
from timm_attn.downstream.train import measure
from timm_attn.figures.canvas import require_matplotlib
from timm_attn.images import read_image
from timm_attn.reports.numbers import check_numbers
from timm_attn.training import checkpoint
from timm_attn.training.bounds import short
from timm_attn.training.processes import joined
from timm_attn.training.recipe import usable
from timm_attn.weights.metadata import class_names
from timm_attn.weights.trained import model_arguments

# Keys of a recipe that only the user may say, not a file.
_USERS = ('device', 'device_modules', 'pretrained')
_MOST = 10_000  # a file's number: beyond any net's, and built in seconds
_MOST_OF = {'min_size': 2048, 'max_size': 4096}  # pixels; the maps of a larger picture fill the memory


def load(file: Path, changes: Mapping[str, Any] | None = None) -> tuple[nn.Module, TaskRecipe, list[str]]:
    """The model of a last.pth.tar or last.safetensors with its weights, its recipe and its classes.

    Args:
        changes: values instead of the recipe's, such as val_split or batch_size.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is not of a training of a downstream task, or is damaged.
    """
    state = checkpoint.load(file)
    said = {key: value for key, value in (state.get('recipe') or {}).items() if key not in _USERS}
    if 'task' not in said:
        raise ValueError(f'{file} is not of a downstream task: its recipe names none.')
    said['model_kwargs'] = model_arguments(file, said)  # those that a file may set
    _check_options(file, said.get('task_kwargs'))
    recipe = task_recipe({**said, **(changes or {})}, f'The recipe in {file}')
    classes = class_names(state.get('options', {}).get('class_names'), file) or []
    name = state.get('arch', '')
    task, tensors = task_of(recipe), state['state_dict']
    _check_tensors(file, tensors)
    if not task.knows(name):
        raise ValueError(f'{file} is of the model {name!r}, which the task {recipe.task} does not have.')
    with usable(), torch.device('meta'):  # its options may be those of a much larger model
        wanted = task.build(name, recipe, classes).state_dict()
    forms = [
        {key: (value.shape, value.is_floating_point()) for key, value in tensors_of.items()}
        for tensors_of in (tensors, wanted)
    ]
    if differing := sorted(key for key in {*tensors} | {*wanted} if forms[0].get(key) != forms[1].get(key)):
        raise ValueError(
            f'{file} does not fit {recipe.task} on {name}: {differing[0]} has or needs another shape or type.'
        )
    with usable():
        model = task.build(name, recipe, classes)
    model.load_state_dict(tensors, strict=True)
    return model.eval(), recipe, classes


def _check_options(file: Path, options: Any) -> None:
    """Raises a ValueError for a value of a file's task_kwargs that is no text, truth value or number within bounds."""
    for key, value in options.items() if isinstance(options, dict) else ():
        values = value if isinstance(value, list) and len(value) <= 16 else [value]
        most = _MOST_OF.get(key, _MOST)
        if not all(v is None or isinstance(v, str) or (isinstance(v, int | float) and abs(v) <= most) for v in values):
            raise ValueError(
                f'{file} has task_kwargs {short(key)}: {short(value)}, but a file may say texts and numbers up to '
                f'{most:,}, or at most 16 of them.'
            )


def _check_tensors(file: Path, tensors: Any) -> None:
    """Raises a ValueError unless a file's state dict has finite real tensors alone."""
    if not isinstance(tensors, Mapping):
        raise ValueError(f'{file} is damaged: its state_dict is {short(tensors)}.')
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f'{file} is damaged: its state_dict {short(key)} is {short(tensor)}, no tensor.')
        if tensor.is_complex() or not tensor.isfinite().all():
            raise ValueError(f'{file} is damaged: its state_dict {short(key)} has values that are not real and finite.')


def evaluate(file: Path, data_dir: Path, changes: Mapping[str, Any] | None = None) -> dict[str, float]:
    """All metrics of a trained model on the validation split; under torchrun every process calls this.

    Raises:
        FileNotFoundError, ValueError: see load; or the data has other classes.
    """
    with joined((changes or {}).get('device')) as processes:
        model, recipe, classes = load(file, changes)
        task = task_of(recipe)
        samples = task.data[recipe.dataset].open(recipe, data_dir, False)
        if list(samples.classes) != classes:
            differing = sorted({*samples.classes} ^ {*classes}) or 'their order'
            raise ValueError(f'{data_dir} has other classes than {file} was trained on: {differing}.')
        tests = validation_loader(samples, task.collate, recipe, processes)
        model.to(processes.device)
        return measure(model, task, tests, recipe, len(classes), processes)


def predict(
    file: Path, pictures: Sequence[Path], output: Path, *, numbers: str = 'csv', device: str | None = None
) -> list[Path]:
    """Writes what a trained model finds on pictures: NAME_TASK.png and the numbers beside it, for each.

    Under torchrun every process calls this and takes its share of the pictures; all get the names of all files.

    Args:
        output: the folder of the files.

    Raises:
        FileNotFoundError, ValueError: see load; or a picture cannot be read, or two have the same name.
    """
    require_matplotlib()
    check_numbers(numbers)
    stems: dict[str, Path] = {}
    for path in pictures:
        if path.stem in stems:
            raise ValueError(
                f'{stems[path.stem]} and {path} would both be written to {output / path.stem}_...: predict them apart.'
            )
        stems[path.stem] = path
    images = [pil_to_tensor(read_image(path)).float() / 255 for path in pictures]
    model, recipe, classes = load(file)
    task = task_of(recipe)
    with joined(device) as processes:
        model.to(processes.device)
        written: list[Sequence[Path]] = []
        for path, image in [*zip(pictures, images, strict=True)][processes.rank :: processes.count]:
            picture = output / f'{path.stem}_{recipe.task}.png'
            written.append(task.predict(model, image.to(processes.device), classes, picture, numbers))
        shares = processes.gather(written)
    return [file for place in range(len(pictures)) for file in shares[place % len(shares)][place // len(shares)]]
