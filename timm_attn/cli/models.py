"""The verbs of `timm-attn` about the zoo: list, info, demo, paper."""

import argparse
from pathlib import Path


def add_verbs(verbs: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Adds the parsers; only a verb that runs imports more than argparse."""
    verb = verbs.add_parser('list', help='the models, with the tags of their checkpoints')
    verb.add_argument('pattern', nargs='?', default='*', help="a glob such as '*_simam'")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser('info', help='what a model is')
    verb.add_argument('name')
    verb.set_defaults(run=_info)

    verb = verbs.add_parser('demo', help='a bundled checkpoint at work: accuracy, fine-tuning, a picture; no network')
    verb.add_argument('--picture', type=Path, default=Path('timm_attn_demo.png'), help='default: %(default)s')
    verb.set_defaults(run=_demo)

    verb = verbs.add_parser('paper', help="the papers' tables of parameters and operations beside what our models have")
    verb.add_argument('table', nargs='?', help="such as 'BAM 4'; default: all")
    verb.add_argument('--format', choices=('md', 'json', 'csv'), default='md')
    verb.set_defaults(run=_paper)


def _list(args: argparse.Namespace) -> None:
    from timm_attn.catalog import listing

    print('\n'.join(listing(args.pattern)))


def _info(args: argparse.Namespace) -> None:
    from timm_attn.catalog import description

    print('\n'.join(description(args.name)))


def _demo(args: argparse.Namespace) -> None:
    from timm_attn.demo import run_demo

    run_demo(args.picture)


def _paper(args: argparse.Namespace) -> None:
    from timm_attn.paper import tables

    print(tables(args.format, args.table))
