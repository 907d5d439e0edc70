"""The printed text of `python -m benchmarks`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.cases import Case
from benchmarks.measure import Clock, Spread
from benchmarks.measured import MEMORY, Measured, Outcome

HEADS = {'saved_mib': 'MiB saved', 'saved_inputs': 'inputs saved', 'peak_mib': 'MiB at peak'}
NOTES = {
    'saved_mib': 'saved: what autograd keeps for backward, weights left out',
    'peak_mib': "peak: the most that torch's allocator held in a step beyond what it held before",
}


def environment_line(environment: Mapping[str, Any]) -> str:
    """The environment in one line."""
    return ', '.join(f'{key}: {"none" if value is None else value}' for key, value in environment.items())


def missing_lines(missing: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The engines that are not installed."""
    yield from (f'not measured: {engine}, which needs {" and ".join(needs)}' for engine, needs in missing.items())


def case_lines(measured: Measured) -> Iterator[str]:
    """A heading and one line per variant; medians, and quartiles in brackets."""
    case, times = measured.case, measured.times
    rounds = len(times.seconds[case.reference])
    yield f'\n{case.name}: {case.title}; {rounds} rounds'
    memory = [c for c in MEMORY if any(c in row for row in measured.memory.values())]
    yield from (f'  {NOTES[c]}' for c in memory if c in NOTES)
    yield from _aligned([_heads(case, memory), *(_cells(measured, variant, memory) for variant in times.seconds)])


def _heads(case: Case, memory: Sequence[str]) -> list[str]:
    clocks = ['ms'] if case.clock == 'wall' else ['CPU ms', 'wall ms']
    beside = [column.replace('_', ' ') for column in case.beside]
    return ['', *clocks, case.unit[0], f'speed against {case.reference}', *beside, *(HEADS[c] for c in memory)]


def _cells(measured: Measured, variant: str, memory: Sequence[str]) -> list[str]:
    clocks: Sequence[Clock] = ('wall',) if measured.case.clock == 'wall' else ('cpu', 'wall')
    spreads = [_spread(measured.times.milliseconds(variant, clock)) for clock in clocks]
    speeds = [_spread(s) for s in (measured.speed(variant), *measured.beside(variant).values())]
    of = measured.memory[variant]
    return [
        variant,
        *spreads,
        f'{measured.rate(variant):.4g}',
        *speeds,
        *(f'{of[c]:.2f}' if c in of else '' for c in memory),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names to the left, the rest to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        yield '  '.join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))])


def table3_lines(results: Sequence[Measured]) -> Iterator[str]:
    """SimAM Table 3's speed column beside this machine's."""
    cases = [measured for measured in results if measured.case.paper]
    if cases:
        yield '\nSimAM Table 3, inference speed, one image: the paper on a GTX 1080 Ti, and here'
        yield f'{"":32}{"paper: FPS":>12}{"ratio":>8}{"here: FPS":>12}{"ratio":>30}'
    for measured in cases:
        fps = {speed.model: speed.fps for speed in measured.case.paper}
        for row, model, base, printed in measured.case.paper:
            here = f'{measured.rate(model):12.1f}{_spread(measured.speed(model)):>30}'
            yield f'{f"{row}, {measured.case.device}":32}{printed:12}{printed / fps[base]:8.2f}{here}'


def target_lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A Markdown table of the targets; 'elsewhere' was measured in the same rounds."""
    yield '\n| what | target | elsewhere | measured (quartiles) | |'
    yield '| --- | ---: | ---: | ---: | --- |'
    for o in outcomes:
        sign = '<=' if o.target.quantity != 'speed' else '>='
        elsewhere = f'{o.elsewhere.median:.2f}' if o.elsewhere else '-'
        measured = _spread(o.measured) if o.measured else '-'
        yield f'| {o.target.what} | {sign} {o.target.limit:.4g} | {elsewhere} | {measured} | {o.verdict} |'


def _spread(s: Spread) -> str:
    return f'{s.median:.4g} ({s.low:.4g} to {s.high:.4g})'
