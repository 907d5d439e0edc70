"""The commands of `timm-attn` that analyse nets: predict, explain, profile, selectivity, cost."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm_attn.cli.parser import Commands, add_command, add_net, add_output, net_and_inputs

if TYPE_CHECKING:
    from timm_attn.reports.net import Net

_DATA = 'cifar_resnet20_se DATA/validation'


def add_commands(commands: Commands) -> None:
    """Adds the parsers; only a command that runs imports more than argparse."""
    example = 'cifar_resnet20_simam docs/samples/coat_17.png'
    command = add_command(commands, 'predict', _predict, 'the top 5 classes of images', example=example)
    add_net(command, 'IMAGE', several=True)

    what = 'Grad-CAM before and after a layer, its attention, the top 5 classes'
    command = add_command(commands, 'explain', _explain, what, example=f'{example} --layer layer3')
    add_net(command, 'IMAGE', several=True)
    _add_second_net(command)
    command.add_argument('--layer', metavar='PATH', help='any layer of the net; default: its last attention layer')
    command.add_argument('--class', dest='label', type=int, metavar='N', help='of Grad-CAM; default: the predicted one')
    add_output(command, 'folder of the sheets; default: this one', default=Path('.'))
    command.add_argument('--format', choices=('png', 'svg'), default='png')

    what = "channels' mean attention, class by class, over a folder of class folders or a tar of them"
    command = add_command(commands, 'profile', _profile, what, example=_DATA)
    add_net(command, 'DATA')
    _add_second_net(command)
    command.add_argument('--classes', nargs='+', default=(), metavar='CLASS', help='at most 4; default: the first 4')
    _add_files(command)

    what = 'class selectivity of feature maps, stage by stage, over a folder of class folders or a tar of them'
    command = add_command(commands, 'selectivity', _selectivity, what, example=_DATA)
    add_net(command, 'DATA')
    _add_second_net(command)
    _add_files(command)

    what = 'parameters, MACs, bytes and milliseconds of the attention layers'
    command = add_command(commands, 'cost', _cost, what, example='cifar_resnet20_cbam')
    add_net(command, checkpoint=False)
    command.add_argument('--layers', nargs='+', metavar='PATH', help='default: the attention layers, else the stages')
    command.add_argument('--batch-size', type=int, default=1, metavar='N', help='default: %(default)s')
    _add_files(command)


def _add_second_net(command: argparse.ArgumentParser) -> None:
    command.add_argument('--against', metavar='NAME2', help='a second net, to compare with')
    command.add_argument('--against-checkpoint', type=Path, metavar='FILE', help='the weights of the second net')


def _add_files(command: argparse.ArgumentParser) -> None:
    add_output(command, 'a .png or .svg; default: NAME_COMMAND.png')
    command.add_argument(
        '--numbers', choices=('csv', 'json'), default='csv', help='format of the numbers; default: %(default)s'
    )


def _nets(args: argparse.Namespace, name: str | None) -> list['Net']:
    from timm_attn.reports.net import distinct, load_net

    nets = [load_net(name, args.checkpoint, args.device)]
    if args.against is not None or args.against_checkpoint is not None:
        nets.append(load_net(args.against, args.against_checkpoint, args.device))
    return distinct(nets)


def _predict(args: argparse.Namespace) -> None:
    from timm_attn.reports.net import load_net
    from timm_attn.reports.predict import predict

    name, images = net_and_inputs(args)
    for path, classes in predict(load_net(name, args.checkpoint, args.device), images):
        print(f'{path}: {_words(classes)}')


def _words(classes: Sequence[tuple[str, float]]) -> str:
    return ', '.join(f'{label} {100 * p:.1f} %' for label, p in classes)


def _explain(args: argparse.Namespace) -> None:
    from timm_attn.reports.explain import compare, explain

    name, images = net_and_inputs(args)
    if args.against is not None and (args.layer is not None or args.label is not None):
        raise ValueError('--against shows every stage: --layer and --class do not go with it.')
    nets = _nets(args, name)
    if len(nets) == 2:
        rows: Any = compare((nets[0], nets[1]), images, args.output, file_format=args.format)
    else:
        options = dict(layer=args.layer, label=args.label, file_format=args.format)
        rows = explain(nets[0], images, args.output, **options)
    for path, sheet, classes in rows:
        print(f'{path}: {_words(classes)}; {sheet or "no sheet, the nets agree"}')


def _profile(args: argparse.Namespace) -> None:
    from timm_attn.reports.profile import profile

    name, (data,) = net_and_inputs(args)
    nets = _nets(args, name)
    _print(profile(nets, data, _output(args, nets[0], 'profile'), classes=args.classes, numbers=args.numbers))


def _selectivity(args: argparse.Namespace) -> None:
    from timm_attn.reports.selectivity import selectivity

    name, (data,) = net_and_inputs(args)
    nets = _nets(args, name)
    _print(selectivity(nets, data, _output(args, nets[0], 'selectivity'), numbers=args.numbers))


def _cost(args: argparse.Namespace) -> None:
    from timm_attn.reports.cost import cost
    from timm_attn.reports.net import load_net

    name, _ = net_and_inputs(args)
    net = load_net(name, device=args.device, trained=False)
    options = dict(layers=args.layers, batch_size=args.batch_size, numbers=args.numbers)
    costs, files = cost(net, _output(args, net, 'cost'), **options)
    print(f'{"layer":32} {"params":>12} {"M MACs":>10} {"MB moved":>10} {"MB saved":>10} {"ms":>8}')
    for c in costs:
        millions = (f'{n / 1e6:10.3f}' for n in (c.macs, c.moved_bytes, c.saved_bytes))
        print(f'{c.path:32} {c.params:12,} {" ".join(millions)} {c.milliseconds:8.3f}')
    _print(files)


def _output(args: argparse.Namespace, net: 'Net', command: str) -> Path:
    return args.output or Path(f'{net.name}_{command}.png')


def _print(files: Sequence[Path]) -> None:
    print('\n'.join(map(str, files)))
