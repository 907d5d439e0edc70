"""The console command `timm-attn`: every command parses its arguments and calls one library function."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from timm_attn import __version__
from timm_attn.cli import deploy, downstream, models, reports, training, weights

TOPICS = (models, training, weights, reports, deploy, downstream)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command."""
    return in_one_line('timm-attn', lambda: _run(argv))


def in_one_line(program: str, run: Callable[[], None]) -> int:
    """Runs a program: its ValueError, RuntimeError or OSError becomes one line on stderr and exit status 1."""
    try:
        run()
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f'{program}: interrupted.', file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f'{program}: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    except MemoryError:
        print(f'{program}: there is not enough memory for this.', file=sys.stderr)
        return 1
    return 0


def _run(argv: Sequence[str] | None) -> None:
    parser = _parser()
    args, left = parser.parse_known_args(argv)
    if left and (not hasattr(args, 'arguments') or any(argument.startswith('-') for argument in left)):
        parser.error(f'unrecognized arguments: {" ".join(left)}')
    if left:  # argparse takes no positional arguments that follow an option
        args.arguments += left
    args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='timm-attn', description='Attention modules for ConvNets as timm models.')
    parser.add_argument('--version', action='version', version=f'timm-attn {__version__}')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for topic in TOPICS:
        topic.add_commands(commands)
    return parser
