"""The pictures of a run, from the numbers in its file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import PICTURES, all_cases
from benchmarks.engine_figure import engine_figure
from benchmarks.figure import SpeedBar, SpeedPanel, benchmark_figure
from benchmarks.measure import Spread
from benchmarks.targets import TARGETS
from timm_attn import figures

Row = Mapping[str, Any]


def draw(out: Path, environment: Row, targets: Sequence[Row], rows: Sequence[Row]) -> list[Path]:
    """Writes a picture per kind of case that the rows have; its name is that of out with the kind's at the end."""
    e = environment
    threads = f'{e["threads"]} thread{"s" * (e["threads"] > 1)}'
    machine = ', '.join(filter(None, (e['cpu'], e.get('instructions'), threads, e['gpu'], e['date'][:10])))
    there = {row['case'] for row in rows}
    paths = []
    for kind, what in PICTURES.items():
        cases = {case.name: case.title for case in all_cases() if case.picture == kind and case.name in there}
        if cases:
            title = f'{what}\n{machine}; variants took turns'
            if kind == 'engines':
                figure = engine_figure(title, [(cases[name], _speeds(rows, name)) for name in cases])
            else:
                figure = benchmark_figure(title, [_panel(rows, targets, *case) for case in cases.items()])
            paths.append(figures.save(figure, out.with_stem(f'{out.stem}_{kind}')))
    return paths


def _of(rows: Sequence[Row], case: str) -> Iterator[Row]:
    return (row for row in rows if row['case'] == case)


def _speeds(rows: Sequence[Row], case: str) -> dict[str, Spread]:
    return {row['variant']: Spread(*(row[f'speed{end}'] for end in ('', '_q1', '_q3'))) for row in _of(rows, case)}


def _panel(rows: Sequence[Row], targets: Sequence[Row], case: str, title: str) -> SpeedPanel:
    """The variants beside the reference, with the targets against that."""
    against = {target.what: target.against for target in TARGETS}
    fps = {row['variant']: row['paper_fps'] or math.nan for row in _of(rows, case)}
    reference = next(_of(rows, case))['reference']
    limits = {
        row['variant']: row['target']
        for row in _of(targets, case)
        if row['quantity'] == 'speed' and against[row['what']] in ('', reference)
    }
    bars = [
        SpeedBar(variant, *speed, limits.get(variant), fps[variant] / fps[reference])
        for variant, speed in _speeds(rows, case).items()
        if variant != reference
    ]
    return SpeedPanel(title, reference, bars)
