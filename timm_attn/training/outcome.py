"""What a training measured, by its own files: accuracy and recipe for the record that publishes its weights."""

import csv
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from timm_attn.training.fingerprint import IMAGES
from timm_attn.training.recipe import Recipe, load_recipe, recipe_of
from timm_attn.weights.convert import AVERAGED

RECIPE, TABLE = 'recipe.yaml', 'summary.csv'
_WEIGHTS = {'last.safetensors': False, 'last_ema.safetensors': True}  # of a run's end, and whether they are averaged


@dataclass(frozen=True)
class Outcome:
    """The last epoch of a run.

    Args:
        recipe: what the run did, as the text of recipe.yaml.
        metric: a row of the manifest; without a dataset where the images came from a folder.
    """

    recipe: str
    metric: Mapping[str, Any]


def outcome(file: Path, content: Mapping[str, Any], ema: bool = True) -> Outcome | None:
    """The outcome of the run of `timm-attn train` that wrote a checkpoint; None where there is none to see.

    Args:
        file: last.pth.tar, which has the run's table, or last.safetensors or last_ema.safetensors beside summary.csv.
        content: what it holds, of read_training_file.
        ema: the averaged weights of last.pth.tar are meant, where it has them.

    Raises:
        ValueError: the files of the run contradict each other, or are damaged.
    """
    options, recipe_path = content.get('options'), file.with_name(RECIPE)
    if not options or not content.get('recipe'):  # of another script
        return None
    recipe = recipe_of(content['recipe'], f'The recipe in {file}')
    rows = _rows(file, content, recipe)
    if not rows:
        return None
    if recipe_path.is_file() and (differing := _differing(recipe, load_recipe(str(recipe_path)))):
        raise ValueError(
            f'{file} was not trained by the recipe beside it, {recipe_path}: {", ".join(differing)} differ.'
        )
    averaged = _WEIGHTS.get(file.name, ema and any(content.get(key) is not None for key in AVERAGED))
    metric = {
        'dataset': recipe.dataset,
        'split': _split(recipe, options),
        'images': _images(options.get(IMAGES[1])),
        **_accuracy(rows[-1], averaged, file),
        'status': 'measured',
        'command': _command(content.get('arch', 'NAME'), options),
    }
    found = {key: value for key, value in metric.items() if value not in (None, '')}
    return Outcome(yaml.safe_dump(vars(recipe)), found)


def _rows(file: Path, content: Mapping[str, Any], recipe: Recipe) -> Sequence[Mapping[str, Any]]:
    """The run's table: the checkpoint's own, or the one beside the weights of its end."""
    table = file.with_name(TABLE)
    written: list[Any] = []
    if table.is_file():
        try:
            written = list(csv.DictReader(table.read_text(encoding='utf-8').splitlines()))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f'{table} is no table of a run: {error}.') from error
    own = content.get('rows')
    if own is not None and not (isinstance(own, list) and all(isinstance(row, Mapping) for row in own)):
        raise ValueError(f'{file} is damaged: its rows are {reprlib.repr(own)}.')
    if own is None:
        if file.name not in _WEIGHTS or not written:
            return []
        epochs = recipe.epochs - (recipe.start_epoch or 0)
        if len(written) < epochs:
            raise ValueError(f'{file} is not of the run in {table}, which has {len(written)} of {epochs} epochs.')
        return written
    epoch = len(written)  # a kill between checkpoint and table leaves one fewer than the checkpoint's
    if written and (epoch > len(own) or str(own[epoch - 1].get('top1')) != written[-1].get('top1')):
        raise ValueError(f'{file} is not of the run in {table}, which has another top-1 after epoch {epoch}.')
    return own


def _differing(ours: Recipe, theirs: Recipe) -> list[str]:
    return [key for key, value in vars(ours).items() if value != vars(theirs)[key]]


def _accuracy(row: Mapping[str, Any], averaged: bool, file: Path) -> dict[str, float]:
    """Top-1 and top-5 in percent; of averaged weights a run measures top-1 alone."""
    columns = {'top1': 'top1_ema'} if averaged else {'top1': 'top1', 'top5': 'top5'}
    try:
        return {key: float(row[column]) for key, column in columns.items()}
    except (KeyError, TypeError, ValueError) as error:
        named = ' and '.join(columns.values())
        raise ValueError(f'The table of {file} is damaged: its last row has no {named}, or no numbers.') from error


def _images(fingerprint: Any) -> int | None:
    """How many images were measured; None of a stream that does not say it."""
    images = fingerprint.get('images') if isinstance(fingerprint, Mapping) else None
    return images if isinstance(images, int) and images > 0 else None


def _split(recipe: Recipe, options: Mapping[str, Any]) -> str:
    """What was measured, in words."""
    if options.get('holdout'):
        return f'held out of {recipe.train_split.removesuffix(".tar")}'
    return recipe.val_split.removesuffix('.tar')


def _command(model: str, options: Mapping[str, Any]) -> str:
    """The command that trains and measures it again."""
    switches = [f' --holdout {options["holdout"]}'] if options.get('holdout') else []
    switches += [' --freeze'] if options.get('head_only') else []
    return f'timm-attn train --config {RECIPE} --model {model} --data-dir DATA --output OUT{"".join(switches)}'
