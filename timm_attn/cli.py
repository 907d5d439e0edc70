"""The console command `timm-attn`: every verb parses its arguments and calls one library function."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from timm_attn.reports.verbs import add_verbs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; what the input did not allow becomes one line on stderr and exit status 1."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, RuntimeError, OSError) as error:
        print(f'timm-attn: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


def _list(args: argparse.Namespace) -> None:
    from timm_attn.catalog import listing

    print('\n'.join(listing(args.pattern)))


def _info(args: argparse.Namespace) -> None:
    from timm_attn.catalog import description

    print('\n'.join(description(args.name)))


def _predict(args: argparse.Namespace) -> None:
    from timm_attn.predict import predict

    for prediction in predict(args.name, args.images):
        print(f'{prediction.path}: ' + ', '.join(f'{label} {100 * p:.1f} %' for label, p in prediction.classes))


def _demo(args: argparse.Namespace) -> None:
    from timm_attn.demo import run_demo

    run_demo(args.picture)


def _paper(args: argparse.Namespace) -> None:
    from timm_attn.paper import tables

    print(tables(args.format, args.table))


def _train(args: argparse.Namespace) -> None:
    from timm_attn.training.recipe import load_recipe
    from timm_attn.training.runner import train

    print(train(load_recipe(args.config), args.model, args.data_dir, args.output))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='timm-attn', description='Attention modules for ConvNets as timm models.')
    verbs = parser.add_subparsers(metavar='VERB', required=True)

    verb = verbs.add_parser('list', help='the models, with the tags of their checkpoints')
    verb.add_argument('pattern', nargs='?', default='*', help="a glob such as '*_simam'")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser('info', help='what a model is')
    verb.add_argument('name')
    verb.set_defaults(run=_info)

    verb = verbs.add_parser('predict', help='the top 5 classes of images, by a model with a checkpoint')
    verb.add_argument('name')
    verb.add_argument('images', nargs='+', type=Path)
    verb.set_defaults(run=_predict)

    verb = verbs.add_parser('demo', help='a bundled checkpoint at work: accuracy, fine-tuning, a picture; no network')
    verb.add_argument('--picture', type=Path, default=Path('timm_attn_demo.png'), help='default: %(default)s')
    verb.set_defaults(run=_demo)

    verb = verbs.add_parser('paper', help="the papers' tables of parameters and operations beside what our models have")
    verb.add_argument('table', nargs='?', help="such as 'BAM 4'; default: all")
    verb.add_argument('--format', choices=('md', 'json', 'csv'), default='md')
    verb.set_defaults(run=_paper)

    verb = verbs.add_parser('train', help='train a model by a recipe')
    verb.add_argument('--config', required=True, help="a recipe's name, or a YAML file in timm's vocabulary")
    verb.add_argument('--model', required=True)
    verb.add_argument('--data-dir', type=Path, required=True)
    verb.add_argument('--output', type=Path, required=True)
    verb.set_defaults(run=_train)

    add_verbs(verbs)
    return parser


if __name__ == '__main__':
    sys.exit(main())
