"""The printed text of `python -m benchmarks`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.measure import Spread
from benchmarks.measured import MEMORY, Measured, Outcome

HEADS = {'saved_mib': 'MiB saved', 'saved_inputs': 'inputs saved', 'peak_mib': 'MiB at peak'}
NOTES = {
    'saved_mib': 'saved: what autograd keeps for backward, weights left out',
    'peak_mib': "peak: the most that torch's allocator held in a step beyond what it held before",
}


def environment_line(environment: Mapping[str, Any]) -> str:
    """The environment in one line."""
    return ', '.join(f'{key}: {"none" if value is None else value}' for key, value in environment.items())


def case_lines(measured: Measured) -> Iterator[str]:
    """A heading and one line per variant; medians, and quartiles in brackets."""
    case, times = measured.case, measured.times
    rounds = len(times.seconds[case.reference])
    yield f'\n{case.name}: {case.title}; {rounds} rounds'
    columns = [c for c in MEMORY if any(c in memory for memory in measured.memory.values())]
    yield from (f'  {NOTES[c]}' for c in columns if c in NOTES)
    heads = ''.join(f'{HEADS[c]:>14}' for c in columns)
    yield f'{"":16}{"ms":>28}{case.unit[0]:>12}{f"speed against {case.reference}":>36}{heads}'
    for variant in times.seconds:
        memory = measured.memory[variant]
        cells = ''.join(f'{memory[c]:14.2f}' if c in memory else ' ' * 14 for c in columns)
        ms, speed = (_spread(s) for s in (times.milliseconds(variant), measured.speed(variant)))
        yield f'{variant:16}{ms:>28}{measured.rate(variant):12.4g}{speed:>36}{cells}'


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
