"""The console command `timm-attn`: every verb parses its arguments and calls one library function."""

import argparse
import ast
import datetime
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timm_attn.training.recipe import Recipe


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
    from timm_attn.training.runner import train

    weights = train(
        _recipe(args), args.model, args.data_dir, args.output, resume=args.resume, head_only=args.freeze,
        skip_unreadable=args.unreadable == 'skip', tensorboard=args.tensorboard, confusion_matrix=args.confusion,
    )  # fmt: skip
    if not int(os.environ.get('RANK', '0')):  # of torchrun's processes the first alone prints
        print(weights)


def _validate(args: argparse.Namespace) -> None:
    from timm_attn.training.validate import validate

    metrics = validate(
        args.model, args.data_dir, weights=args.checkpoint, recipe=_recipe(args) if args.config else None,
        split=args.split, workers=args.workers, device=args.device, skip_unreadable=args.unreadable == 'skip',
    )  # fmt: skip
    if not int(os.environ.get('RANK', '0')):
        print(', '.join(f'{name} {value:.6g}' for name, value in metrics.items()))


def _sweep(args: argparse.Namespace) -> None:
    from timm_attn.training.sweep import sweep

    rows = sweep(
        _recipe(args), args.model, args.data_dir, args.output, attn_kwarg=args.attn_kwarg, values=args.values,
        repeats=args.repeats, holdout=args.holdout,
    )  # fmt: skip
    for row in () if int(os.environ.get('RANK', '0')) else rows:
        spread = 'one run' if row['sd'] is None else f'sd {row["sd"]:.2f}, n = {row["n"]}'
        print(f'{args.attn_kwarg} {row["value"]}: top-1 {row["mean"]:.2f} %, {spread}')


def _curves(args: argparse.Namespace) -> None:
    from timm_attn.training.curves import curves

    curves(args.runs, args.output, args.metrics)


def _recipe(args: argparse.Namespace) -> 'Recipe':
    import yaml

    from timm_attn.training.recipe import load_recipe

    changes: dict[str, Any] = {}
    for change in args.set:
        key, equals, value = change.partition('=')
        if not equals:
            raise ValueError(f'--set takes KEY=VALUE, but got {change!r}.')
        changes[key] = yaml.safe_load(value)
    for key in ('seed', 'device'):
        if getattr(args, key, None) is not None:
            changes[key] = getattr(args, key)
    return load_recipe(args.config, changes)


def _weights_list(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import listing

    print('\n'.join(listing()))


def _weights_verify(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import verify_all

    print('\n'.join(verify_all()))


def _weights_path(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import path_of

    print(path_of(args.name))


def _weights_remove(args: argparse.Namespace) -> None:
    from timm_attn.weights.inventory import remove

    print(f'removed {remove(args.name)}')


def _weights_import(args: argparse.Namespace) -> None:
    from timm_attn.weights.importing import import_checkpoint

    print(import_checkpoint(args.name, args.file))


def _weights_publish(args: argparse.Namespace) -> None:
    from timm_attn.training.recipe import load_recipe
    from timm_attn.weights.publish import manifest_row, prepare, push

    row = {key: getattr(args, key) for key in ('dataset', 'split', 'images', 'top1', 'top5', 'command')}
    row = {'date': datetime.date.today().isoformat()} | {k: v for k, v in row.items() if v is not None}
    record = prepare(
        args.checkpoint,
        args.name,
        args.repo,
        args.output or Path(f'{args.name}.{args.tag}'),
        tag=args.tag,
        license=args.license,
        ema=args.ema,
        attn_kwargs=dict(args.attn_kwargs or ()),
        recipe=args.recipe,
        settings=vars(load_recipe(args.recipe)) if args.recipe else {},
        metrics=[{**row, 'status': 'measured' if args.command else 'claimed'}] if args.top1 is not None else [],
    )
    if not args.dry_run:
        record = push(record, args.output or Path(f'{args.name}.{args.tag}'), args.repo, args.private)
    print(json.dumps(manifest_row(record), indent=2))


def _option(text: str) -> tuple[str, Any]:
    """A K=V of the command line, V as in Python or a plain word."""
    key, _, value = text.partition('=')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


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
    verb.add_argument('--repeats', type=int, default=5, help='runs a value, each with its seed; default: %(default)s')
    verb.add_argument('--holdout', type=int, default=5000, help='training images kept for validation; default: 5000')

    verb = verbs.add_parser('curves', help='the training and validation curves of runs in one picture')
    verb.add_argument('runs', nargs='+', type=Path, help='the --output of a training')
    verb.add_argument('--output', type=Path, default=Path('curves.png'), help='default: %(default)s')
    verb.add_argument('--metrics', nargs='+', choices=('loss', 'top1', 'top5'), default=['top1', 'top5'])
    verb.set_defaults(run=_curves)

    verb = _on_images(verbs, 'validate', 'the accuracy of a model on a folder of images', _validate)
    verb.add_argument('--checkpoint', type=Path, help='.safetensors or .pth.tar; default: the pretrained weights')
    verb.add_argument('--split', help="default: the recipe's, or validation")
    verb.add_argument('--workers', type=int, default=0)

    _add_weights_verbs(verbs.add_parser('weights', help='checkpoints: list, verify, path, remove, import, publish'))
    return parser


def _on_images(verbs: Any, name: str, what: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """A verb that reads images by a recipe."""
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what)
    config = "a recipe's name, or a YAML file in timm's vocabulary"
    verb.add_argument('--config', required=name != 'validate', help=config)
    verb.add_argument('--set', nargs='+', default=[], metavar='KEY=VALUE', help='values of the recipe to change')
    verb.add_argument('--model', required=True)
    verb.add_argument('--data-dir', type=Path, required=True)
    verb.add_argument('--device', help='such as cpu or cuda; default: a GPU if there is one')
    verb.add_argument('--unreadable', choices=('stop', 'skip'), default='stop', help='what a broken image file does')
    verb.set_defaults(run=run)
    return verb


def _add_weights_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar='VERB', required=True)

    verb = verbs.add_parser('list', help="the manifest's checkpoints, and which are here")
    verb.set_defaults(run=_weights_list)

    verb = verbs.add_parser('verify', help='hash every file that is here again; exit status 1 on any mismatch')
    verb.set_defaults(run=_weights_verify)

    verb = verbs.add_parser('path', help='the verified file of a checkpoint, fetched where need be')
    verb.add_argument('name')
    verb.set_defaults(run=_weights_path)

    verb = verbs.add_parser('remove', help='delete the local file of a fetched or imported checkpoint')
    verb.add_argument('name')
    verb.set_defaults(run=_weights_remove)

    verb = verbs.add_parser('import', help="convert a checkpoint of the authors' and keep it")
    verb.add_argument('name')
    verb.add_argument('file', nargs='?', type=Path, help='the downloaded file; fetched if its address allows it')
    verb.set_defaults(run=_weights_import)

    verb = verbs.add_parser('publish', help='upload a checkpoint to the Hugging Face Hub and print its record')
    verb.add_argument('checkpoint', type=Path, help="a file of timm's train.py or of `timm-attn train`")
    verb.add_argument('--name', required=True, help='the model')
    verb.add_argument('--repo', required=True, metavar='ORG/NAME')
    verb.add_argument('--tag', required=True, help='such as simam_in1k')
    verb.add_argument('--license', default='apache-2.0', help='SPDX; default: %(default)s')
    verb.add_argument('--no-ema', dest='ema', action='store_false', help='the plain weights where averaged ones exist')
    verb.add_argument('--attn-kwargs', nargs='+', type=_option, metavar='K=V', help='unless the file has them')
    verb.add_argument('--recipe', default='', help='the recipe that trained it: a name or a YAML file')
    verb.add_argument('--dataset', help='what --top1 is on')
    verb.add_argument('--split', default='validation')
    verb.add_argument('--images', type=int)
    verb.add_argument('--top1', type=float, metavar='PERCENT')
    verb.add_argument('--top5', type=float, metavar='PERCENT')
    verb.add_argument('--command', help='that measured them; without it they are called claimed')
    verb.add_argument('--private', action='store_true')
    verb.add_argument('--output', type=Path, help='the folder to write; default: NAME.TAG')
    verb.add_argument('--dry-run', action='store_true', help='write the folder only')
    verb.set_defaults(run=_weights_publish)


if __name__ == '__main__':
    sys.exit(main())
