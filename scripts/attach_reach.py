"""Put attention into a model of each of timm's model files, at its stages and by the table, and print what it reaches.

    python scripts/attach_reach.py --check results.jsonl > docs/attach_reach.md

A file's smallest model stands for all of its names. It is attached without values (meta device); --check also makes the
checks of attach_checks.py, with values, of what is reached and not yet in the file of results, which may be made in
shards at once.
"""

import argparse
import datetime
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attach_checks
import timm
import torch
from timm.models import list_modules

from timm_attn import attach, placements

WAYS: dict[str, dict[str, Any]] = {'stages': {'at': 'stages'}, 'table': {}}
Results = dict[tuple[str, str], dict[str, str]]  # of a model and a way: check -> outcome


class Reach(NamedTuple):
    """What attach did with a model: how many layers it put in, and why it left out places or the whole net."""

    layers: int
    why: str


class Row(NamedTuple):
    """A model file of timm, the model that stands for its names, and what attach does with it in both ways."""

    file: str
    count: int
    name: str
    reached: dict[str, Reach]


def representatives(shard: int, shards: int) -> Iterator[tuple[str, str, int]]:
    """Every model file of timm, its smallest model, and the number of its names."""
    for file in list_modules()[shard::shards]:
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
        return Reach(0, str(error).partition('. ')[0])
    rows = placements(model)
    left = [row for row in rows if row.how == 'skipped']
    return Reach(len(rows) - len(left), '; '.join(dict.fromkeys(row.note for row in left)))


def read(file: Path | None) -> Results:
    """What has been checked; a later line counts."""
    lines = file.read_text(encoding='utf-8').splitlines() if file is not None and file.is_file() else []
    return {(one['name'], one['way']): one['found'] for one in map(json.loads, lines)}


def check(row: Row, results: Results, file: Path) -> None:
    """Makes the checks of a model that are missing, and appends them to the file."""
    for key, way in WAYS.items():
        if row.reached[key].layers and (row.name, key) not in results:
            results[row.name, key] = attach_checks.run(row.name, way)
            with file.open('a', encoding='utf-8') as out:
                print(json.dumps(dict(name=row.name, way=key, found=results[row.name, key])), file=out)


def by_file(rows: Sequence[Row]) -> Iterator[str]:
    """The table of the files."""
    yield '| file | models | tried | layers at stages | layers by the table | exceptions |'
    yield '|---|---|---|---|---|---|'
    for row in rows:
        cells = [str(row.reached[key].layers or '-') for key in WAYS]
        notes = '; '.join(f'{key}: {one.why}' for key, one in row.reached.items() if one.why).replace('|', 'or')
        yield f'| {row.file} | {row.count} | {row.name} | {" | ".join(cells)} | {notes} |'


def totals(rows: Sequence[Row]) -> str:
    """How many names and files are reached."""
    parts, names = [], sum(row.count for row in rows)
    for key, words in (('stages', 'at stages'), ('table', 'by the table')):
        of = [row for row in rows if row.reached[key].layers]
        parts.append(f'{sum(row.count for row in of)} of {names} names ({len(of)} files) {words}')
    return f'Reached: {", ".join(parts)}.'


def checks(results: Results) -> Iterator[str]:
    """The table of the checks, and what did not pass, with its reason."""
    yield '| check | at stages: passed | not passed | by the table: passed | not passed |'
    yield '|---|---|---|---|---|'
    for title in attach_checks.CHECKS:
        cells = []
        for key in WAYS:
            passed = Counter(
                found[title] == attach_checks.PASSED for (_, way), found in sorted(results.items()) if way == key
            )
            cells += [str(passed[True]), str(passed[False])]
        yield f'| {title} | {" | ".join(cells)} |'
    yield '\nNot passed, and why:\n'
    for title in attach_checks.CHECKS:
        for why, nets in _reasons(title, results).items():
            yield f'- {title}: {why}: {", ".join(nets)}'


def _reasons(title: str, results: Results) -> Mapping[str, list[str]]:
    nets: dict[str, list[str]] = {}
    for (name, way), found in sorted(results.items()):
        if found[title] != attach_checks.PASSED:
            nets.setdefault(found[title].rstrip('.'), []).append(f'{name} ({way})')
    return nets


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', type=Path, metavar='FILE', help='also check the nets; results are kept in FILE')
    parser.add_argument('--shard', default='0/1', metavar='I/N', help='every N-th file, from the I-th (0-based) on')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    results, rows = read(args.check), []
    for file, name, count in representatives(*map(int, args.shard.split('/'))):
        rows.append(Row(file, count, name, {key: reach(build(name), way) for key, way in WAYS.items()}))
        if args.check:
            check(rows[-1], results, args.check)
    print("# Which of timm's models `attach` reaches\n")
    versions = f'timm {timm.__version__}, torch {torch.__version__}'
    print(f'Written by scripts/attach_reach.py on {datetime.date.today()}, {versions}, on a CPU.')
    print("The smallest model of a file stands for the others. ECA replaces a net's own attention by the table.\n")
    print(totals(rows))
    if args.check:
        print('\n## What an attached net still does\n')
        reached = sum(bool(one.layers) for row in rows for one in row.reached.values())
        print(f'{len(results)} of {reached} nets are checked, with random weights, and norms as after training;')
        print('scripts/attach_checks.py has the checks.\n')
        print('\n'.join(checks(results)))
    print('\n## By file\n')
    print('\n'.join(by_file(rows)))


if __name__ == '__main__':
    main()
