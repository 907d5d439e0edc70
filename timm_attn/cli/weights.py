"""The verbs `timm-attn weights ...`: list, verify, path, remove, import, publish."""

import argparse
import ast
import datetime
import json
from pathlib import Path
from typing import Any


def add_verbs(verbs: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Adds the parsers; only a verb that runs imports more than argparse."""
    parser = verbs.add_parser('weights', help='checkpoints: list, verify, path, remove, import, publish')
    verbs = parser.add_subparsers(metavar='VERB', required=True)

    verb = verbs.add_parser('list', help="the manifest's checkpoints, and which are here")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser('verify', help='hash every file that is here again; exit status 1 on any mismatch')
    verb.set_defaults(run=_verify)

    verb = verbs.add_parser('path', help='the verified file of a checkpoint, fetched where need be')
    verb.add_argument('name')
    verb.set_defaults(run=_path)

    verb = verbs.add_parser('remove', help='delete the local file of a fetched or imported checkpoint')
    verb.add_argument('name')
    verb.set_defaults(run=_remove)

    verb = verbs.add_parser('import', help="convert a checkpoint of the authors' and keep it")
    verb.add_argument('name')
    verb.add_argument('file', nargs='?', type=Path, help='the downloaded file; fetched if its address allows it')
    verb.set_defaults(run=_import)

    verb = verbs.add_parser('publish', help='upload a checkpoint to the Hugging Face Hub and print its record')
    verb.add_argument('checkpoint', type=Path, help="a file of timm's train.py or of `timm-attn train`")
    verb.add_argument('--name', required=True, help='the model')
    verb.add_argument('--repo', required=True, metavar='ORG/NAME')
    verb.add_argument('--tag', required=True, help='such as simam_in1k')
    verb.add_argument('--license', default='apache-2.0', help='SPDX; default: %(default)s')
    verb.add_argument('--no-ema', dest='ema', action='store_false', help='the plain weights where averaged ones exist')
    verb.add_argument(
        '--attn-kwargs', nargs='+', action='extend', type=_option, metavar='K=V', help='unless the file has them'
    )
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
    verb.set_defaults(run=_publish)


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
