"""The tables of docs/benchmarks.md, from results/benchmark/."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markdown_tables import table

BENCHMARKS = Path(__file__).resolve().parents[1] / 'results' / 'benchmark'


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
    files = sorted(BENCHMARKS.glob('*.json'))
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in files]
    return '\n\n'.join(f'{_hardware(run["environment"])}\n\n{content(run)}' for run in runs)


def _hardware(environment: Mapping[str, Any]) -> str:
    e = environment
    where = e['gpu'] or f'{e["cpu"]}, {e["cores"]} cores, {e["threads"]} threads'
    return f'{e["date"][:10]}, {where}, torch {e["torch"]}, load before {e["load_before"][0]}:'
