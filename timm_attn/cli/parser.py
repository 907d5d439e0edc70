"""Options that the commands share, so that they have the same names everywhere."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Commands = Any  # argparse's action of subparsers, which it does not export
Run = Callable[[argparse.Namespace], None]


def add_command(commands: Commands, name: str, run: Run, what: str, *, example: str) -> argparse.ArgumentParser:
    """A command that calls `run`, with an example of its arguments at the end of its help."""
    form = argparse.RawDescriptionHelpFormatter
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=f'{what[0].upper()}{what[1:]}.')
    command.formatter_class = form
    command.epilog = f'example:\n  {command.prog} {example}'.rstrip()
    command.set_defaults(run=run)
    return command


def add_output(command: argparse.ArgumentParser, what: str, *, default: Path | None = None, **options: Any) -> None:
    """--output; --out is its abbreviation."""
    command.add_argument('--output', type=Path, metavar='PATH', help=what, default=default, **options)


def add_ema(command: argparse.ArgumentParser) -> None:
    """--no-ema."""
    what = 'the plain weights, not the averaged ones'
    command.add_argument('--no-ema', dest='ema', action='store_false', help=what)


def add_device(command: argparse.ArgumentParser) -> None:
    """--device."""
    command.add_argument('--device', help='such as cpu or cuda; default: a GPU if there is one')


def add_net(
    command: argparse.ArgumentParser, inputs: str = '', *, several: bool = False, checkpoint: bool = True
) -> None:
    """A net, by --model, as the first argument or by its checkpoint, followed by its inputs; see net_and_inputs."""
    names = ' '.join(filter(None, ('[NAME]', inputs, '...' if several else '')))
    what = 'a model of the zoo or of timm' + ', and the inputs' * bool(inputs)
    command.add_argument('arguments', nargs='*', metavar=names, help=what)
    command.add_argument('--model', metavar='NAME', help='instead of the first argument')
    if checkpoint:
        what = 'its weights, and its model where it names one; default: the pretrained weights'
        command.add_argument('--checkpoint', type=Path, metavar='FILE', help=what)
    add_device(command)
    command.set_defaults(checkpoint=None, inputs=inputs, several=several)


def net_and_inputs(args: argparse.Namespace) -> tuple[str | None, list[Path]]:
    """The name of the model, None where only its checkpoint is named, and the inputs.

    Raises:
        ValueError: two models are named, or there are too few or too many inputs.
    """
    import timm

    name, inputs = args.model, list(args.arguments)
    is_named = bool(inputs) and timm.is_model(inputs[0].partition('.')[0])
    if is_named and name not in (None, inputs[0]):
        raise ValueError(f'Two models are named, {name!r} by --model and {inputs[0]!r} as the first argument.')
    if is_named or (inputs and name is None and args.checkpoint is None):
        name = inputs.pop(0)
    if not args.inputs:
        if inputs:
            raise ValueError(f'Nothing is expected behind the name of the model, but got {" ".join(inputs)}.')
    elif not inputs or (len(inputs) > 1 and not args.several):
        wanted = 'one or more' if args.several else 'one'
        raise ValueError(f'{wanted} {args.inputs} must stand behind the model, but got {" ".join(inputs) or "none"}.')
    return name, [Path(path) for path in inputs]
