#!/usr/bin/env python3
"""Writes the tables of README.md and docs/ from the zoo, the manifest and results/; --check says if they are new."""

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm

from timm_attn import ATTENTION, BACKBONES, paper, zoo
from timm_attn.weights import checkpoints

from results import compare, load_results  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
WARM_START = ROOT / 'results' / 'warm_start' / 'cifar_resnet20.json'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] + ['---:'] * (len(head) - 1), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def parameters(name: str) -> str:
    return f'{sum(p.numel() for p in timm.create_model(name, device="meta").parameters()):,}'


def zoo_table() -> str:
    rows = []
    for stem, backbone in BACKBONES.items():
        pairs = [f'{stem}_{key}' if row.site in backbone.sites else None for key, row in ATTENTION.items()]
        rows.append([f'`{stem}`', parameters(backbone.timm or stem), *(parameters(n) if n else '' for n in pairs)])
    return table(['backbone', 'none', *(f'`{key}`' for key in ATTENTION)], rows)


def checkpoint_table() -> str:
    """A row per checkpoint, the default of a name first."""
    rows = []
    for c in checkpoints():
        best = c.metrics[0]
        origin = c.origin.get('repository', '').removeprefix('https://github.com/')
        whose = f'[{origin}](https://github.com/{origin})' if origin else 'ours'
        accuracy = f'{best["top1"]:.2f} {best["status"]}'
        how = f'{c.row.state} ({c.row.verified})'
        rows.append([f'`{c.full_name}`', best['dataset'], accuracy, whose, c.license or 'none named', how])
    return table(['name', 'data', 'top-1 %', 'whose', 'licence', '`pretrained=True`'], rows)


def without_weights() -> str:
    """The backbones of which no name has weights or a plain net to start from."""
    loaded = {name.partition('.')[0] for name in timm.list_pretrained()}
    without = {stem: [n for n in zoo.names() if n == stem or n.startswith(f'{stem}_')] for stem in BACKBONES}
    return ', '.join(f'`{stem}`' for stem, names in without.items() if not loaded.intersection(names))


def family_table() -> str:
    rows = compare(load_results(ROOT / 'results' / 'fashion_mnist'), 'cifar_resnet20')
    return table(list(rows[0]), [list(row.values()) for row in rows])


def paper_line() -> str:
    return f'> {paper.tables("md").splitlines()[-1]}'


def measured_speeds(numbers: Mapping[str, Any]) -> str:
    """The targets that a benchmark could measure."""
    rows = [
        [
            row['what'],
            f'{"at most" if row["quantity"] == "saved_inputs" else "at least"} {row["target"]:.4g}',
            f'{row["measured"]:.3g} ({row["measured_q1"]:.3g} to {row["measured_q3"]:.3g})',
            '' if row['elsewhere'] is None else f'{row["elsewhere"]:.3g}',
            row['verdict'],
        ]
        for row in numbers['targets']
        if row['measured'] is not None
    ]
    return table(['speed ratio', 'target', 'measured (quartiles)', "the formula, or timm's layer", ''], rows)


def printed_speeds(numbers: Mapping[str, Any]) -> str:
    """Images per second of SimAM Table 3 beside those of a benchmark."""
    rows = [row for row in numbers['rows'] if row['paper_fps'] is not None]
    plain = {row['case']: row['paper_fps'] for row in rows if row['variant'] == row['reference']}
    lines = [
        [
            f'`{row["variant"]}`',
            f'{row["paper_fps"]:.0f}',
            f'{row["paper_fps"] / plain[row["case"]]:.2f}',
            f'{row["rate"]:.1f}',
            f'{row["speed"]:.2f}',
        ]
        for row in rows
    ]
    return table(['one image', 'printed FPS', 'to the plain net', 'FPS here', 'to the plain net'], lines)


def compiled_speeds(numbers: Mapping[str, Any]) -> str:
    """The nets under torch.compile beside the compiled plain net, one row per net, one column per case."""
    rows = [row for row in numbers['rows'] if '/compiled/' in row['case'] and row['variant'] != row['reference']]
    cases = list(dict.fromkeys(row['case'] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        quartiles = f'{row["speed_q1"]:.3g} to {row["speed_q3"]:.3g}'
        lines.setdefault(f'`resnet50_{row["variant"]}`', []).append(f'{row["speed"]:.3g} ({quartiles})')
    heads = [case.partition('/compiled/b')[2].replace('/', ', ') for case in cases]
    return table(
        ['to the compiled plain net', *(f'batch {head}' for head in heads)], [[k, *v] for k, v in lines.items()]
    )


def of_benchmarks(content: Callable[[Mapping[str, Any]], str]) -> str:
    """A table for every benchmark in results/, under a line that says when and where it ran."""
    files = sorted((ROOT / 'results' / 'benchmark').glob('*.json'))
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in files]
    return '\n\n'.join(f'{_hardware(run["environment"])}\n\n{content(run)}' for run in runs)


def _hardware(environment: Mapping[str, Any]) -> str:
    e = environment
    where = e['gpu'] or f'{e["cpu"]}, {e["cores"]} cores, {e["threads"]} threads'
    return f'{e["date"][:10]}, {where}, torch {e["torch"]}, load before {e["load_before"][0]}:'


def warm_start_table() -> str:
    """A row per net and start: accuracy before and after an epoch, and the loss of the first steps."""
    run = json.loads(WARM_START.read_text(encoding='utf-8'))
    about = f'{run["date"]}, {run["hardware"]}, torch {run["torch"]}, {len(run["seeds"])} seeds:'
    rows = [
        [row['net'], row['start'], _mean_sd(row['before']), _mean_sd(row['after']),
         ' '.join(f'{loss:.3f}' for loss in row['first_losses'])]
        for row in run['rows']
    ]  # fmt: skip
    head = ['net', 'start', 'top-1 % at the start', 'after one epoch', 'loss of steps 1 to 5']
    return f'{about}\n\n{table(head, rows)}'


def _mean_sd(values: Sequence[float]) -> str:
    return f'{statistics.fmean(values):.2f} ({statistics.stdev(values):.2f})'


def new_text(text: str, file: str, tables: Mapping[str, str]) -> str:
    """A file's text with its tables between their markers.

    Raises:
        SystemExit: a table's markers are not there once.
    """
    for name, content in tables.items():
        between = rf'(<!-- {name} -->\n).*?(<!-- /{name} -->)'
        text, found = re.subn(between, lambda m, c=content: f'{m[1]}{c}\n{m[2]}', text, flags=re.S)
        if found != 1:
            sys.exit(f'{file} must have the markers of the table {name!r} once, but has them {found} times')
    return text


def main() -> int:
    files = {
        'README.md': {
            'zoo': zoo_table(),
            'checkpoints': checkpoint_table(),
            'without': without_weights(),
            'family': family_table(),
            'paper': paper_line(),
            'speed': of_benchmarks(measured_speeds),
            'compiled': of_benchmarks(compiled_speeds),
            'table 3': of_benchmarks(printed_speeds),
        },
        'docs/warm_start.md': {'evidence': warm_start_table()},
    }
    outdated = 0
    for file, tables in files.items():
        text = (ROOT / file).read_text(encoding='utf-8')
        new = new_text(text, file, tables)
        if '--check' in sys.argv:
            print(f'{file} is current' if new == text else f'{file} is out of date: run scripts/readme_tables.py')
            outdated += new != text
        else:
            (ROOT / file).write_text(new, encoding='utf-8')
    return int(outdated > 0)


if __name__ == '__main__':
    sys.exit(main())
