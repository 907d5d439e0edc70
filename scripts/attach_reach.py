"""Put attention into a model of each of timm's model files, at its stages and by the table, and print what it reaches.

A file's smallest model stands for all of its names. Without values (meta device); --check also runs every attached net
on random images, and loads the plain net's weights into it.
"""

import argparse
import copy
import datetime
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import timm
import torch
from timm.models import list_modules

from timm_attn import attach, placements

WAYS: dict[str, dict[str, Any]] = {'stages': {'at': 'stages'}, 'table': {}}


class Reach(NamedTuple):
    """What attach did with a model: how many layers it put in, how many places it left out, or why there is none."""

    layers: int
    skipped: int
    why: str


def representatives() -> Iterator[tuple[str, str, int]]:
    """Every model file of timm, its smallest model, and the number of its names."""
    for file in list_modules():
        names = [
            name for name in timm.list_models(module=file) if timm.model_entrypoint(name).__module__.startswith('timm.')
        ]
        sizes = {name: sum(p.numel() for p in build(name).parameters()) for name in names}
        if sizes:
            yield file, min(sizes, key=lambda name: sizes[name]), len(names)


def build(name: str) -> Any:
    """A model without values."""
    with torch.device('meta'):
        return timm.create_model(name)


def reach(model: Any, way: dict[str, Any]) -> Reach:
    """Attaches ECA, or puts it into the places of the net's own attention where it has some."""
    try:
        attach(model, 'eca', **way)
    except ValueError as error:
        if 'replace=True' in str(error):
            return reach(model, {**way, 'replace': True})
        return Reach(0, 0, str(error).partition('. An attention weights')[0])
    rows = placements(model)
    left = [row for row in rows if row.how == 'skipped']
    return Reach(len(rows) - len(left), len(left), '; '.join(dict.fromkeys(row.note for row in left)))


@torch.no_grad()
def check(name: str, way: dict[str, Any]) -> str:
    """What goes wrong when an attached net with values runs and loads the plain net's weights."""
    plain = timm.create_model(name).eval()
    model = copy.deepcopy(plain)
    if not reach(model, way).layers:
        return ''
    try:
        model(torch.randn(1, *plain.pretrained_cfg['input_size']))
        missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    except (AssertionError, RuntimeError) as error:
        return ' '.join(str(error).split())[:200]
    rows = placements(model)
    new = tuple(f'{row.path}.' for row in rows if row.channels)
    old = tuple(f'{row.path}.' for row in rows if row.how == 'replaced')
    left = [*(k for k in missing if not k.startswith(new)), *(k for k in unexpected if not k.startswith(old or '.'))]
    return ', '.join(left[:3])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='also run the nets and load plain weights')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    print("# Which of timm's models `attach` reaches\n")
    versions = f'timm {timm.__version__}, torch {torch.__version__}'
    print(f'Written by scripts/attach_reach.py on {datetime.date.today()}, {versions}.')
    print("The smallest model of a file stands for the others. ECA replaces a net's own attention by the table.\n")
    print('| file | models | tried | layers at stages | layers by the table | exceptions |')
    print('|---|---|---|---|---|---|')
    totals, files, names = dict.fromkeys(WAYS, 0), dict.fromkeys(WAYS, 0), 0
    for file, name, count in representatives():
        names += count
        cells, notes = [], []
        for key, way in WAYS.items():
            found = reach(build(name), way)
            wrong = check(name, way) if args.check else ''
            totals[key] += count * bool(found.layers)
            files[key] += bool(found.layers)
            cells.append(str(found.layers) if found.layers else '-')
            notes += [f'{key}: {text}' for text in (found.why, wrong and f'WRONG {wrong}') if text]
        print(
            f'| {file} | {count} | {name} | {" | ".join(cells)} | {"; ".join(notes).replace("|", "or")} |', flush=True
        )
    reached = ', '.join(
        f'{totals[k]} of {names} names ({files[k]} files) {"by the table" if k == "table" else "at stages"}'
        for k in WAYS
    )
    print(f'\nReached: {reached}.')


if __name__ == '__main__':
    main()
