"""The verbs of `timm-attn` that look into nets: predict, explain, profile, selectivity, cost."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_verbs(verbs: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Adds the parsers; only a verb that runs imports more than argparse."""
    verb = _verb(verbs, 'predict', _predict, 'the top 5 classes of images')
    _add_checkpoint(verb)
    verb.add_argument('images', nargs='+', type=Path)

    verb = _verb(verbs, 'explain', _explain, 'what a layer makes of pictures: Grad-CAM, attention, top 5', trained=True)
    verb.add_argument('images', nargs='+', type=Path)
    verb.add_argument('--layer', metavar='PATH', help='any layer of the net; default: its last attention layer')
    verb.add_argument('--class', dest='label', type=int, metavar='N', help='of Grad-CAM; default: the predicted one')
    verb.add_argument('--out', type=Path, default=Path('.'), help='folder of the sheets; default: this one')
    verb.add_argument('--format', choices=('png', 'svg'), default='png')

    verb = _verb(verbs, 'profile', _profile, "channels' mean attention, class by class, over a dataset", trained=True)
    verb.add_argument('data', type=Path, help='a folder of class folders, or a tar of them')
    verb.add_argument('--classes', nargs='+', default=(), metavar='CLASS', help='at most 4; default: the first 4')
    _add_files(verb)

    verb = _verb(
        verbs, 'selectivity', _selectivity, 'class selectivity of the feature maps, stage by stage', trained=True
    )
    verb.add_argument('data', type=Path, help='a folder of class folders, or a tar of them')
    _add_files(verb)

    verb = _verb(verbs, 'cost', _cost, 'parameters, MACs, bytes and milliseconds of the attention layers')
    verb.add_argument('--layers', nargs='+', metavar='PATH', help='default: the attention layers, else the stages')
    verb.add_argument('--batch-size', type=int, default=1, metavar='N', help='default: %(default)s')
    _add_files(verb)


def _verb(verbs: Any, name: str, run: Any, help: str, trained: bool = False) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=help)
    verb.set_defaults(run=run)
    verb.add_argument('name', help='a model of the zoo or of timm')
    verb.add_argument('--device', default='cpu', help='such as cuda; default: %(default)s')
    if trained:
        _add_checkpoint(verb)
        verb.add_argument('--against', metavar='NAME2', help='a second net')
        verb.add_argument('--against-checkpoint', type=Path, metavar='FILE')
    return verb


def _add_checkpoint(verb: argparse.ArgumentParser) -> None:
    verb.add_argument('--checkpoint', type=Path, metavar='FILE', help='its weights; default: the pretrained ones')


def _add_files(verb: argparse.ArgumentParser) -> None:
    verb.add_argument('--out', type=Path, metavar='FILE', help='a .png or .svg; default: NAME_VERB.png')
    verb.add_argument('--numbers', choices=('csv', 'json'), default='csv', help='beside it; default: %(default)s')


def _nets(args: argparse.Namespace) -> list[Any]:
    from timm_attn.reports.nets import distinct, load_net

    if args.against is None and args.against_checkpoint is not None:
        raise ValueError('--against-checkpoint needs --against and the name of its net.')
    nets = [load_net(args.name, args.checkpoint, args.device)]
    if args.against is not None:
        nets.append(load_net(args.against, args.against_checkpoint, args.device))
    return distinct(nets)


def _predict(args: argparse.Namespace) -> None:
    from timm_attn.reports.nets import load_net
    from timm_attn.reports.predict import predict

    for path, classes in predict(load_net(args.name, args.checkpoint, args.device), args.images):
        print(f'{path}: {_words(classes)}')


def _words(classes: Sequence[tuple[str, float]]) -> str:
    return ', '.join(f'{label} {100 * p:.1f} %' for label, p in classes)


def _explain(args: argparse.Namespace) -> None:
    from timm_attn.reports.explain import compare, explain

    if args.against is not None and (args.layer is not None or args.label is not None):
        raise ValueError('--against shows every stage: --layer and --class do not go with it.')
    first, *second = _nets(args)
    if second:
        rows: Any = compare((first, *second), args.images, args.out, file_format=args.format)
    else:
        options = dict(layer=args.layer, label=args.label, file_format=args.format)
        rows = explain(first, args.images, args.out, **options)
    for path, sheet, classes in rows:
        print(f'{path}: {_words(classes)}; {sheet or "no sheet, the nets agree"}')


def _profile(args: argparse.Namespace) -> None:
    from timm_attn.reports.profile import profile

    _print(profile(_nets(args), args.data, _out(args, 'profile'), classes=args.classes, numbers=args.numbers))


def _selectivity(args: argparse.Namespace) -> None:
    from timm_attn.reports.selectivity import selectivity

    _print(selectivity(_nets(args), args.data, _out(args, 'selectivity'), numbers=args.numbers))


def _cost(args: argparse.Namespace) -> None:
    from timm_attn.reports.cost import cost
    from timm_attn.reports.nets import load_net

    net = load_net(args.name, device=args.device, trained=False)
    options = dict(layers=args.layers, batch_size=args.batch_size, numbers=args.numbers)
    costs, files = cost(net, _out(args, 'cost'), **options)
    print(f'{"layer":32} {"params":>12} {"M MACs":>10} {"MB moved":>10} {"MB saved":>10} {"ms":>8}')
    for c in costs:
        millions = (f'{n / 1e6:10.3f}' for n in (c.macs, c.moved_bytes, c.saved_bytes))
        print(f'{c.path:32} {c.params:12,} {" ".join(millions)} {c.milliseconds:8.3f}')
    _print(files)


def _out(args: argparse.Namespace, verb: str) -> Path:
    return args.out or Path(f'{args.name}_{verb}.png')


def _print(files: Sequence[Path]) -> None:
    print('\n'.join(map(str, files)))
