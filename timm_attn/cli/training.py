"""The verbs of `timm-attn` that train and test: train, sweep, curves, validate."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timm_attn.training.recipe import Recipe


def add_verbs(verbs: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Adds the parsers; only a verb that runs imports more than argparse."""
    verb = _on_images(verbs, 'train', 'train a model by a recipe', _train)
    verb.add_argument('--output', type=Path, required=True)
    verb.add_argument('--resume', action='store_true', help='go on where the run in --output ended')
    verb.add_argument('--seed', type=int, help="instead of the recipe's")
    verb.add_argument('--freeze', action='store_true', help='train the classifier alone')
    verb.add_argument('--tensorboard', action='store_true')
    verb.add_argument('--confusion', action='store_true', help='draw confusion.png at the end')

    verb = _on_images(verbs, 'sweep', 'search an option of the attention on a part of the training images', _sweep)
    verb.add_argument('--output', type=Path, required=True)
    verb.add_argument('--attn-kwarg', required=True, help='such as e_lambda, reduction, dilation or kernel_size')
    verb.add_argument('--values', nargs='+', required=True)
    verb.add_argument('--repeats', type=int, default=5, help='runs per value, each with its seed; default: %(default)s')
    verb.add_argument('--holdout', type=int, default=5000, help='training images kept for validation; default: 5000')

    verb = verbs.add_parser('curves', help='the training and validation curves of runs in one picture')
    verb.add_argument('runs', nargs='+', type=Path, help='the --output of a training')
    verb.add_argument('--output', type=Path, default=Path('curves.png'), help='default: %(default)s')
    verb.add_argument('--metrics', nargs='+', choices=('loss', 'top1', 'top5'), default=['top1', 'top5'])
    verb.set_defaults(run=_curves)

    verb = _on_images(verbs, 'validate', 'the accuracy of a model on a folder of images', _validate)
    verb.add_argument('--checkpoint', type=Path, help='.safetensors or .pth.tar; default: the pretrained weights')
    verb.add_argument('--split', help="default: the recipe's, or validation")
    verb.add_argument('--workers', type=int, help="default: the recipe's")
    verb.add_argument('--no-ema', dest='ema', action='store_false', help='the plain weights where averaged ones exist')


def _on_images(verbs: Any, name: str, what: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """A verb that reads images by a recipe."""
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what)
    config = "a recipe's name, or a YAML file in timm's vocabulary"
    verb.add_argument('--config', required=name != 'validate', help=config)
    verb.add_argument(
        '--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='values of the recipe to change'
    )
    verb.add_argument('--model', required=True)
    verb.add_argument('--data-dir', type=Path, required=True)
    verb.add_argument('--device', help='such as cpu or cuda; default: a GPU if there is one')
    verb.add_argument('--unreadable', choices=('stop', 'skip'), default='stop', help='what a broken image file does')
    verb.set_defaults(run=_keeping_memory(run))
    return verb


def _keeping_memory(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """The verb, in a process that is its own: what a step of it frees stays for the next."""

    def keep_and_run(args: argparse.Namespace) -> None:
        from timm_attn.training.memory import keep_freed_memory

        keep_freed_memory()
        run(args)

    return keep_and_run


def _train(args: argparse.Namespace) -> None:
    from timm_attn.training.runner import train

    weights = train(
        _recipe(args), args.model, args.data_dir, args.output, resume=args.resume, head_only=args.freeze,
        skip_unreadable=args.unreadable == 'skip', tensorboard=args.tensorboard, confusion_matrix=args.confusion,
    )  # fmt: skip
    if _is_first():
        print(weights)


def _validate(args: argparse.Namespace) -> None:
    from timm_attn.training.logs import one_line
    from timm_attn.training.validate import validate

    metrics = validate(
        args.model, args.data_dir, weights=args.checkpoint, recipe=_recipe(args) if args.config else None,
        changes=_changes(args), split=args.split, workers=args.workers, device=args.device,
        skip_unreadable=args.unreadable == 'skip', ema=args.ema,
    )  # fmt: skip
    if _is_first():
        print(one_line(metrics))


def _sweep(args: argparse.Namespace) -> None:
    from timm_attn.training.sweep import sweep

    rows = sweep(
        _recipe(args), args.model, args.data_dir, args.output, attn_kwarg=args.attn_kwarg, values=args.values,
        repeats=args.repeats, holdout=args.holdout, skip_unreadable=args.unreadable == 'skip',
    )  # fmt: skip
    for row in rows if _is_first() else ():
        spread = 'one run' if row['sd'] is None else f'sd {row["sd"]:.2f}, n = {row["n"]}'
        found = f'top-1 {row["mean"]:.2f} %, {spread}' if row['n'] else 'no run'
        diverged = f', {row["diverged"]} diverged' if row['diverged'] else ''
        print(f'{args.attn_kwarg} {row["value"]}: {found}{diverged}')


def _curves(args: argparse.Namespace) -> None:
    from timm_attn.reports.curves import curves

    curves(args.runs, args.output, args.metrics)


def _is_first() -> bool:
    """Whether this is the one of torchrun's processes that prints."""
    return os.environ.get('RANK', '0') == '0'


def _recipe(args: argparse.Namespace) -> 'Recipe':
    from timm_attn.training.recipe import load_recipe

    return load_recipe(args.config, _changes(args))


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the recipe that the command line changes."""
    import yaml

    changes: dict[str, Any] = {}
    for change in args.set:
        key, equals, value = change.partition('=')
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ''
        if not equals:
            raise ValueError(f'--set takes KEY=VALUE, the value in YAML, but got {change!r}.')
    for key in ('seed', 'device'):
        if getattr(args, key, None) is not None:
            changes[key] = getattr(args, key)
    return changes
