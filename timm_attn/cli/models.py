"""The commands of `timm-attn` about models: list, info, places, demo, paper."""

import argparse
from pathlib import Path

from timm_attn.cli.parser import Commands, add_command, add_output


def add_commands(commands: Commands) -> None:
    """Adds the parsers; only a command that runs imports more than argparse."""
    what = 'the models, with the tags of their checkpoints and whether they are here, fetched or unverified'
    command = add_command(commands, 'list', _list, what, example="'*_simam'")
    command.add_argument('pattern', nargs='?', default='*', help='a glob; default: all')

    command = add_command(commands, 'info', _info, 'what a model is', example='resnet50_simam')
    command.add_argument('name', help='a model of the zoo; with a tag, that checkpoint alone')

    what = 'where `attach` can put attention into a model of timm or of the zoo; no weights are loaded'
    command = add_command(commands, 'places', _places, what, example='convnext_tiny')
    command.add_argument('name', help='a model of the zoo or of timm')

    what = 'shows a bundled checkpoint: accuracy, fine-tuning, a picture; no network'
    command = add_command(commands, 'demo', _demo, what, example='--output demo.png')
    add_output(command, 'the picture; default: %(default)s', default=Path('timm_attn_demo.png'))
    command.add_argument('--picture', dest='output', type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    what = "the papers' tables of parameters and operations beside what our models have"
    command = add_command(commands, 'paper', _paper, what, example="'BAM 4'")
    command.add_argument(
        'table', nargs='?', help="a paper and the number of its table, such as 'SimAM 3'; default: all"
    )
    command.add_argument('--format', choices=('md', 'json', 'csv'), default='md')


def _list(args: argparse.Namespace) -> None:
    from timm_attn.catalog import listing

    print('\n'.join(listing(args.pattern)))


def _info(args: argparse.Namespace) -> None:
    from timm_attn.catalog import description

    print('\n'.join(description(args.name)))


def _places(args: argparse.Namespace) -> None:
    from timm_attn.catalog import places

    print('\n'.join(places(args.name)))


def _demo(args: argparse.Namespace) -> None:
    from timm_attn.demo import run_demo

    run_demo(args.output)


def _paper(args: argparse.Namespace) -> None:
    from timm_attn.paper import tables

    print(tables(args.format, args.table))
