"""The commands of `timm-attn` that train and test: train, sweep, curves, validate."""

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from timm_attn.cli.parser import Commands, Run, add_command, add_device, add_ema, add_output

if TYPE_CHECKING:
    from timm_attn.training.recipe import Recipe

AnyRecipe = TypeVar('AnyRecipe', bound='Recipe')


def add_commands(commands: Commands) -> None:
    """Adds the parsers; only a command that runs imports more than argparse."""
    what = 'train a model by a recipe'
    example = '--config finetune --model cifar_resnet20_simam --data-dir MY_IMAGES --output OUT'
    command = _on_images(commands, 'train', what, _train, example=example)
    add_output(command, 'the folder of the run', required=True)
    command.add_argument('--resume', action='store_true', help='go on where the run in --output ended')
    command.add_argument('--seed', type=int, help="instead of the recipe's")
    command.add_argument('--freeze', action='store_true', help='train the classifier alone')
    what = 'validate on that many of the training images, or that share of them, which are not trained on: 500 or 0.2'
    command.add_argument('--holdout', type=_count_or_share, metavar='N', help=what)
    command.add_argument('--tensorboard', action='store_true', help="write TensorBoard's files into --output")
    command.add_argument('--confusion', action='store_true', help='draw confusion.png at the end')

    what = 'search an option of the attention on a part of the training images'
    example = (
        '--config simam_cifar100 --model cifar_resnet20_simam --data-dir DATA --output OUT '
        '--attn-kwarg e_lambda --values 1e-6 1e-4 1e-2'
    )
    command = _on_images(commands, 'sweep', what, _sweep, example=example)
    add_output(command, 'the folder of the runs', required=True)
    command.add_argument('--attn-kwarg', required=True, help='such as e_lambda, reduction, dilation or kernel_size')
    command.add_argument('--values', nargs='+', required=True, help='of that option; each is trained')
    what = 'runs per value, each with its seed; default: %(default)s'
    command.add_argument('--repeats', type=int, default=5, help=what)
    what = 'training images kept for validation, or their share; default: 5000'
    command.add_argument('--holdout', type=_count_or_share, default=5000, metavar='N', help=what)

    what = 'the training and validation curves of runs in one picture'
    command = add_command(commands, 'curves', _curves, what, example='OUT_PLAIN OUT_SIMAM')
    command.add_argument('runs', nargs='+', type=Path, help='the --output of a training')
    add_output(command, 'the picture, .png or .svg; default: %(default)s', default=Path('curves.png'))
    what = 'one panel each; default: top1 top5'
    command.add_argument('--metrics', nargs='+', choices=('loss', 'top1', 'top5'), default=['top1', 'top5'], help=what)

    what = 'the accuracy of a model on a folder of images'
    example = '--checkpoint OUT/last.pth.tar --data-dir MY_IMAGES'
    command = _on_images(commands, 'validate', what, _validate, example=example)
    command.add_argument('--checkpoint', type=Path, metavar='FILE', help='default: the pretrained weights')
    command.add_argument('--split', help="default: the recipe's, or validation")
    command.add_argument('--workers', type=int, help="default: the recipe's")
    add_ema(command)


def _on_images(commands: Commands, name: str, what: str, run: Run, *, example: str) -> argparse.ArgumentParser:
    """A command that reads images by a recipe."""
    command = add_command(commands, name, _keeping_memory(run), what, example=example)
    tests = name == 'validate'
    what = "a recipe's name, or a YAML file with the keys of timm's train.py"
    command.add_argument('--config', required=not tests, metavar='RECIPE', help=what)
    what = 'values of the recipe to change'
    command.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help=what)
    what = 'default: the one that the checkpoint says' if tests else 'of the zoo or of timm'
    command.add_argument('--model', required=not tests, metavar='NAME', help=what)
    command.add_argument('--data-dir', type=Path, required=True, metavar='DATA', help='the folder of the splits')
    add_device(command)
    what = 'what a broken image file does; default: %(default)s'
    command.add_argument('--unreadable', choices=('stop', 'skip'), default='stop', help=what)
    return command


def _keeping_memory(run: Run) -> Run:
    """The command, after keep_memory."""

    def keep_and_run(args: argparse.Namespace) -> None:
        keep_memory()
        run(args)

    return keep_and_run


def keep_memory() -> None:
    """Tells the C library to keep freed memory for the next step."""
    from timm_attn.training.memory import keep_freed_memory

    keep_freed_memory()


def _train(args: argparse.Namespace) -> None:
    from timm_attn import figures
    from timm_attn.reports import confusion
    from timm_attn.training.runner import train

    if args.confusion:
        figures.require_matplotlib()
    recipe = _recipe(args, args.output.glob('recipe.yaml'))
    weights = train(
        recipe, args.model, args.data_dir, args.output, resume=args.resume, head_only=args.freeze,
        holdout=args.holdout, skip_unreadable=args.unreadable == 'skip', tensorboard=args.tensorboard,
        confusion_matrix=args.confusion,
    )  # fmt: skip
    if is_first():
        if args.confusion:
            confusion.draw(args.output)
        print(weights)


def _validate(args: argparse.Namespace) -> None:
    from timm_attn.training.logs import one_line
    from timm_attn.training.validate import validate

    metrics = validate(
        args.model, args.data_dir, weights=args.checkpoint, recipe=_recipe(args) if args.config else None,
        changes=changes_from(args), split=args.split, workers=args.workers, device=args.device,
        skip_unreadable=args.unreadable == 'skip', ema=args.ema,
    )  # fmt: skip
    if is_first():
        print(one_line(metrics))


def _sweep(args: argparse.Namespace) -> None:
    from timm_attn import figures
    from timm_attn.reports.sweep import draw
    from timm_attn.training.sweep import sweep

    figures.require_matplotlib()
    recipe = _recipe(args, args.output.glob('*/*/recipe.yaml'))
    rows = sweep(
        recipe, args.model, args.data_dir, args.output, attn_kwarg=args.attn_kwarg, values=args.values,
        repeats=args.repeats, holdout=args.holdout, skip_unreadable=args.unreadable == 'skip',
    )  # fmt: skip
    if is_first():
        draw(args.output)
    for row in rows if is_first() else ():
        spread = 'one run' if row['sd'] is None else f'sd {row["sd"]:.2f}, n = {row["n"]}'
        found = f'top-1 {row["mean"]:.2f} %, {spread}' if row['n'] else 'no run'
        diverged = f', {row["diverged"]} diverged' if row['diverged'] else ''
        print(f'{args.attn_kwarg} {row["value"]}: {found}{diverged}')


def _curves(args: argparse.Namespace) -> None:
    from timm_attn.reports.curves import curves

    print(curves(args.runs, args.output, args.metrics))


def is_first() -> bool:
    """Whether this is the one of torchrun's processes that prints."""
    return os.environ.get('RANK', '0') == '0'


def _count_or_share(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _recipe(args: argparse.Namespace, earlier: Iterable[Path] = ()) -> 'Recipe':
    """The recipe of --config and --set; see recipe_from."""
    from timm_attn.training.recipe import load_recipe

    return recipe_from(args, load_recipe, earlier)


def recipe_from(args: argparse.Namespace, load: Callable[..., AnyRecipe], earlier: Iterable[Path]) -> AnyRecipe:
    """The recipe of --config and --set, with at most one worker per core, unless --set says how many.

    Args:
        load: reads a recipe by its name or path, with changes.
        earlier: recipes of the run in --output. A resumed run keeps its number of workers, because each of them draws
            random numbers of its own.
    """
    from timm_attn.training.loaders import usable_cores

    changes = changes_from(args)
    recipe = load(args.config, changes)
    if 'workers' in changes:
        return recipe
    begun = next(iter(earlier), None)
    workers = min(recipe.workers, usable_cores()) if begun is None else load(str(begun)).workers
    return replace(recipe, workers=workers)


def changes_from(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the recipe that the command line changes."""
    import yaml

    from timm_attn.training.recipe import read_yaml

    changes: dict[str, Any] = {}
    for change in args.set:
        key, equals, value = change.partition('=')
        try:
            changes[key] = read_yaml(value)
        except yaml.YAMLError:
            equals = ''
        if not equals:
            raise ValueError(f'--set takes KEY=VALUE, the value in YAML, but got {change!r}.')
    for key in ('seed', 'device'):
        if getattr(args, key, None) is not None:
            changes[key] = getattr(args, key)
    return changes
