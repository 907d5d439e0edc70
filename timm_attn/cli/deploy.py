"""The command of `timm-attn` for engines: int8."""

import argparse
from pathlib import Path

from timm_attn.cli.parser import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Adds the parser; only a command that runs imports more than argparse."""
    what = 'a trained net in 8 bits for onnxruntime, with its accuracy before and after'
    command = add_command(commands, 'int8', _int8, what, example='OUT/last.pth.tar MY_IMAGES OUT/int8.onnx')
    command.add_argument('checkpoint', type=Path, help='a file of `timm-attn train`')
    command.add_argument('data', type=Path, metavar='DATA', help='the folder with its train and validation')
    command.add_argument('output', type=Path, metavar='OUTPUT.onnx', help='the file; it must not be there yet')
    what = 'training images that give the ranges of the maps; default: 300'
    command.add_argument('--images', type=int, metavar='N', help=what)
    what = 'write nothing that loses more top-1; default: 1'
    command.add_argument('--most-lost', type=float, metavar='POINTS', help=what)


def _int8(args: argparse.Namespace) -> None:
    from timm_attn.reports.int8 import int8

    given = {key: value for key in ('images', 'most_lost') if (value := getattr(args, key)) is not None}
    found = int8(args.checkpoint, args.data, args.output, **given)
    print(f'top-1 {found.before:.2f} % in float, {found.after:.2f} % in INT8, on {found.images} images')
    print(f'the same class for {found.agreement:.2f} %, {found.sqnr:.1f} dB of signal to quantization noise')
    print(args.output)
