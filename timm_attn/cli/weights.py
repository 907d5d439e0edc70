"""The commands `timm-attn weights ...`: list, fetch, verify, path, remove, import, publish."""

import argparse
import ast
import json
from pathlib import Path
from typing import Any

from timm_attn.cli.parser import Commands, add_command, add_ema, add_output


def add_commands(commands: Commands) -> None:
    """Adds the parsers; only a command that runs imports more than argparse."""
    parser = commands.add_parser('weights', help='checkpoints: list, fetch, verify, path, remove, import, publish')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)

    add_command(commands, 'list', _list, "the manifest's checkpoints, and which are here", example='')

    what = 'download weights ahead of time; exit status 1 if any cannot be had'
    command = add_command(commands, 'fetch', _fetch, what, example='resnet50_cbam resnet50_simam.authors_in1k')
    command.add_argument('names', nargs='*', metavar='NAME', help='NAME or NAME.TAG')
    command.add_argument('--all', action='store_true', help='every checkpoint of the manifest')

    what = 'hash every file that is here again; exit status 1 on any mismatch'
    add_command(commands, 'verify', _verify, what, example='')

    for name, run, what, example in (
        ('path', _path, 'the verified file of a checkpoint, fetched where need be', 'cifar_resnet20_simam.fmnist'),
        ('remove', _remove, 'delete the local files of a fetched or imported checkpoint', 'resnet50_cbam.osmr_in1k'),
    ):
        command = add_command(commands, name, run, what, example=example)
        command.add_argument('name', help='NAME or NAME.TAG')

    what = 'convert a downloaded checkpoint of others and keep it'
    command = add_command(commands, 'import', _import, what, example='resnet50_simam.authors_in1k FILE')
    command.add_argument('name', help='NAME or NAME.TAG')
    command.add_argument('file', nargs='?', type=Path, help='the downloaded file; default: fetched')

    what = 'upload a checkpoint to the Hugging Face Hub and print its record'
    example = 'OUT/last.pth.tar --model cifar_resnet20_simam --repo ORG/NAME --tag mine --dry-run'
    command = add_command(commands, 'publish', _publish, what, example=example)
    command.add_argument('checkpoint', type=Path, help="a file of timm's train.py or of `timm-attn train`")
    command.add_argument('--model', metavar='NAME', help='default: the one that the file says')
    command.add_argument('--name', dest='model', default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.add_argument('--repo', required=True, metavar='ORG/NAME')
    command.add_argument('--tag', required=True, help='such as simam_in1k')
    what = 'SPDX; default: that of the weights that the training started from, or apache-2.0'
    command.add_argument('--license', help=what)
    add_ema(command)
    command.add_argument(
        '--attn-kwargs', nargs='+', action='extend', type=_option, metavar='K=V', help='unless the file has them'
    )
    what = (
        "the recipe that trained it, a name or a YAML file; default: that of the run, where it is `timm-attn train`'s"
    )
    command.add_argument('--recipe', default='', help=what)
    command.add_argument('--dataset', help="what the accuracy is on; default: the run's, where its recipe names one")
    command.add_argument('--split', help="default: the run's, or validation")
    command.add_argument('--images', type=int)
    what = "default: of the run's last epoch, with --top5, where it is `timm-attn train`'s"
    command.add_argument('--top1', type=float, metavar='PERCENT', help=what)
    command.add_argument('--top5', type=float, metavar='PERCENT')
    command.add_argument('--command', help='that measured them; without it they are called claimed')
    command.add_argument('--private', action='store_true')
    add_output(command, 'the folder to write; default: NAME.TAG')
    command.add_argument('--dry-run', action='store_true', help='write the folder only')


def _option(text: str) -> tuple[str, Any]:
    """A K=V of the command line, V as in Python or a plain word."""
    key, _, value = text.partition('=')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _list(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import listing

    print('\n'.join(listing()))


def _fetch(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import fetch

    if args.all == bool(args.names):
        raise ValueError('Name the checkpoints to fetch, or say --all.')
    for line in fetch(args.names):
        print(line, flush=True)


def _verify(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import verify_all

    print('\n'.join(verify_all()))


def _path(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import path_of

    print(path_of(args.name))


def _remove(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import remove

    print('\n'.join(f'removed {path}' for path in remove(args.name)))


def _import(args: argparse.Namespace) -> None:
    from timm_attn.weights.importing import import_checkpoint

    print(import_checkpoint(args.name, args.file))


def _publish(args: argparse.Namespace) -> None:
    from timm_attn.training.outcome import RECIPE, outcome
    from timm_attn.training.recipe import load_recipe
    from timm_attn.weights.publish import license_of, manifest_row, metric_rows, prepare, push
    from timm_attn.weights.trained import model_in, read_training_file

    content = read_training_file(args.checkpoint)
    run = outcome(args.checkpoint, content, args.ema)
    given = {key: getattr(args, key) for key in ('dataset', 'split', 'images', 'top1', 'top5', 'command')}
    given = {key: value for key, value in given.items() if value is not None}
    name = args.model or model_in(content, args.checkpoint).partition('.')[0]
    folder = args.output or Path(f'{name}.{args.tag}')
    record = prepare(
        args.checkpoint,
        name,
        args.repo,
        folder,
        tag=args.tag,
        license=args.license or license_of(content, name),
        ema=args.ema,
        attn_kwargs=dict(args.attn_kwargs or ()),
        recipe=args.recipe or (RECIPE if run else ''),
        recipe_yaml=run.recipe if run and not args.recipe else '',
        settings=vars(load_recipe(args.recipe)) if args.recipe else {},
        metrics=metric_rows(given, run.metric if run else None),
    )
    if not args.dry_run:
        record = push(record, folder, args.repo, args.private)
    print(json.dumps(manifest_row(record), indent=2))
