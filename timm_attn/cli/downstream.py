"""The commands of `timm-attn downstream`: train, evaluate, predict, demo."""

import argparse
from pathlib import Path

from timm_attn.cli.parser import Commands, add_command, add_device, add_output

_SET = 'values of the recipe to change'
_MODEL = 'a backbone of the zoo or of timm, or the net that the recipe names, such as ssd300 or srresnet_bam'


def add_commands(commands: Commands) -> None:
    """Adds the parsers; only a command that runs imports more than argparse."""
    what = 'detection, segmentation and super-resolution: train, evaluate, predict, demo'
    group = commands.add_parser('downstream', help=what, description=f'{what.capitalize()}.')
    inner = group.add_subparsers(metavar='COMMAND', required=True)

    what = 'train a model by a recipe of a downstream task'
    example = '--config simam_coco_faster --model resnet50_simam --data-dir COCO --output OUT'
    command = add_command(inner, 'train', _train, what, example=example)
    command.add_argument('--config', required=True, metavar='RECIPE', help="a recipe's name, or a YAML file")
    command.add_argument('--model', required=True, metavar='NAME', help=_MODEL)
    command.add_argument('--data-dir', type=Path, default=Path('.'), metavar='DATA', help='the folder of the data set')
    add_output(command, 'the folder of the run', required=True)
    command.add_argument('--resume', action='store_true', help='go on where the run in --output ended')
    command.add_argument('--seed', type=int, help="instead of the recipe's")
    command.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help=_SET)
    add_device(command)

    what = 'the metrics of a trained model'
    command = add_command(inner, 'evaluate', _evaluate, what, example='OUT/last.safetensors --data-dir COCO')
    command.add_argument('checkpoint', type=Path, help='last.safetensors or last.pth.tar of a run')
    command.add_argument('--data-dir', type=Path, default=Path('.'), metavar='DATA', help='the folder of the data set')
    command.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help=_SET)
    add_device(command)

    what = 'what a trained model makes of pictures, as pictures and numbers'
    command = add_command(inner, 'predict', _predict, what, example='OUT/last.safetensors street.jpg --output FOUND')
    command.add_argument('checkpoint', type=Path, help='last.safetensors or last.pth.tar of a run')
    command.add_argument('pictures', type=Path, nargs='+', metavar='IMAGE')
    add_output(command, 'the folder of the files; default: this one', default=Path('.'))
    command.add_argument(
        '--numbers', choices=('csv', 'json'), default='csv', help='format of the numbers; default: %(default)s'
    )
    add_device(command)

    what = 'trains a detector on scenes of bundled pictures, and shows what it finds; no network'
    command = add_command(inner, 'demo', _demo, what, example='--output detections.png')
    add_output(command, 'the picture; default: %(default)s', default=Path('timm_attn_detections.png'))


def _train(args: argparse.Namespace) -> None:
    from timm_attn.cli.training import is_first, keep_memory, recipe_from
    from timm_attn.downstream.recipe import load_task_recipe
    from timm_attn.downstream.train import train

    keep_memory()
    recipe = recipe_from(args, load_task_recipe, args.output.glob('recipe.yaml'))
    weights = train(recipe, args.model, args.data_dir, args.output, resume=args.resume)
    if is_first():
        print(weights)


def _evaluate(args: argparse.Namespace) -> None:
    from timm_attn.cli.training import changes_from, is_first
    from timm_attn.downstream.trained import evaluate
    from timm_attn.training.logs import one_line

    metrics = evaluate(args.checkpoint, args.data_dir, changes_from(args))
    if is_first():
        print(one_line(metrics))


def _predict(args: argparse.Namespace) -> None:
    from timm_attn.cli.training import is_first
    from timm_attn.downstream.trained import predict

    files = predict(args.checkpoint, args.pictures, args.output, numbers=args.numbers, device=args.device)
    if is_first():
        print('\n'.join(map(str, files)))


def _demo(args: argparse.Namespace) -> None:
    from timm_attn.cli.training import keep_memory
    from timm_attn.downstream.demo import run_demo

    keep_memory()
    run_demo(args.output)
