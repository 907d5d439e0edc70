"""A search over values of an attention option: repeated trainings on a part of the training images."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from timm_attn.files import write_json
from timm_attn.training import checkpoint, splits
from timm_attn.training.engine import NonFiniteLossError
from timm_attn.training.epochs import LAST
from timm_attn.training.lock import held
from timm_attn.training.processes import joined
from timm_attn.training.recipe import Recipe, read_yaml
from timm_attn.training.runner import train
from timm_attn.training.summary import summary


def sweep(
    recipe: Recipe,
    model_name: str,
    data_dir: Path,
    output: Path,
    *,
    attn_kwarg: str,
    values: Sequence[str],
    repeats: int = 5,
    holdout: float = 5000,
    skip_unreadable: bool = False,
) -> list[dict[str, Any]]:
    """Trains each value with the recipe's seed and the following ones, validates on held-out training images only.

    Args:
        attn_kwarg: an option of the attention layer, such as 'e_lambda', 'reduction', 'dilation' or 'kernel_size'.
        values: in YAML, such as '1e-4'; the SimAM paper's pool is 1e-6 ... 1e-1.
        output: gets one folder per run, and sweep.json. An interrupted sweep goes on where it stopped.
        holdout: how many training images, or which share of them, are kept for validation (the SimAM paper: 5,000 of
            50,000).

    Returns:
        One row per value: the value, the top-1 of each run in %, their number, mean and standard deviation, and how
        many runs diverged. A value whose runs all diverged has no mean.

    Raises:
        ValueError: there is nothing to repeat, or the recipe, the model and the data do not fit together.
        RuntimeError: another sweep works in the output.
    """
    if repeats < 1 or not values or len(set(values)) < len(values):
        raise ValueError(f'A sweep needs different values and at least one repeat, but got {list(values)} x {repeats}.')

    splits.refuse_output(output, recipe, data_dir, held_out=True)

    def top1_of(value: str, seed: int) -> float:
        options = {**recipe.model_kwargs.get('attn_kwargs', {}), attn_kwarg: _number(value)}
        one = replace(recipe, seed=seed, model_kwargs={**recipe.model_kwargs, 'attn_kwargs': options})
        run = output / f'{attn_kwarg}={value}' / f'seed{seed}'
        train(one, model_name, data_dir, run, resume=True, holdout=holdout, skip_unreadable=skip_unreadable)
        top1: float = checkpoint.load(run / LAST)['rows'][-1]['top1']
        return top1

    table = []
    with joined(recipe.device) as processes, held(output, processes):
        for value in values:
            top1 = []
            for seed in range(recipe.seed, recipe.seed + repeats):
                try:
                    top1.append(top1_of(value, seed))
                except NonFiniteLossError as error:
                    if processes.count > 1:  # the others do not know of it
                        raise
                    print(error)
            table.append(_row(value, top1, repeats))
    if processes.primary:
        content = dict(model=model_name, attn_kwarg=attn_kwarg, holdout=holdout, recipe=vars(recipe), rows=table)
        write_json(output / 'sweep.json', content)
    return table


def _row(value: str, top1: list[float], repeats: int) -> dict[str, Any]:
    found = asdict(summary(top1)) if top1 else dict(n=0, mean=None, sd=None)
    return {'value': value, 'top1': top1, **found, 'diverged': repeats - len(top1)}


def _number(value: str) -> Any:
    with suppress(ValueError):
        if 'e' in value.lower():  # YAML takes 1e-4 for a text
            return float(value)
    try:
        return read_yaml(value)
    except yaml.YAMLError as error:
        raise ValueError(f'A value to try must be in YAML, but got {value!r}.') from error
