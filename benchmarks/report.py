"""One run: prints results as they come, then writes a picture and the numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import text
from benchmarks.cases import choose
from benchmarks.engines import engine_versions, missing_engines
from benchmarks.environment import cores, environment, load_average
from benchmarks.measured import Measured, measure, outcome_rows, outcomes, rows_of, settings
from benchmarks.pictures import draw
from benchmarks.targets import Target, targets_of
from timm_attn import figures
from timm_attn.figures.canvas import check_format
from timm_attn.files import check_writable
from timm_attn.reports.numbers import check_numbers, write_numbers


def benchmark(
    out: Path,
    *,
    numbers: str = 'json',
    quick: bool = False,
    only: str = '*',
    threads: int | None = None,
    compiled: bool = False,
    engines: bool = False,
) -> list[Path]:
    """Measures the cases, those on a GPU where there is one, and prints them, the paper's speeds and the targets.

    Args:
        out: a .png or .svg file. A picture per kind of case gets its name with the kind's, such as `_nets`, at its end;
            the numbers have its name, and are written again after each case.
        numbers: their format: 'json', with the environment and the targets, or 'csv'.
        quick: fewer cases and rounds: a minute on 2 cores instead of ten.
        only: a glob of the cases' names.
        threads: of torch on the CPU; by default one per core.
        compiled: also the nets under torch.compile.
        engines: also the nets in the engines, those that are installed.

    Raises:
        ValueError: no case has such a name, there is no such format, or threads is not positive.
        RuntimeError: matplotlib is missing, or only cases for a GPU are asked for and there is none.
        OSError: the files cannot be written.
    """
    figures.require_matplotlib()
    check_format(out)
    check_numbers(numbers)
    if threads is not None and threads < 1:
        raise ValueError(f'threads must be positive, but got {threads}.')
    cases = choose(quick=quick, only=only, compiled=compiled, engines=engines)
    runnable = [case for case in cases if case.device == 'cpu' or torch.cuda.is_available()]
    if not runnable:
        raise RuntimeError(f'The cases that match {only!r} need a GPU, and torch sees none.')
    check_writable(out)
    check_writable(out.with_suffix(f'.{numbers}'))
    where = environment(threads or cores())
    if any(case.engines for case in runnable):
        where.update(engine_versions())
        print('\n'.join(text.missing_lines(missing_engines())), flush=True)
    print(text.environment_line(where), flush=True)
    results: list[Measured] = []
    targets = targets_of([case.name for case in cases])
    with settings(where['threads']):
        for case in runnable:
            results.append(measure(case, quick))
            where['load_after'] = load_average()
            file = _write(out, numbers, where, results, targets)
            print('\n'.join(text.case_lines(results[-1])), flush=True)
    found = outcomes(results, targets)
    print('\n'.join((*text.table3_lines(results), *text.target_lines(found))))
    print(f'\nload average before {where["load_before"]}, after {where["load_after"]}', flush=True)
    rows = [row for measured in results for row in rows_of(measured)]
    return [*draw(out, where, list(outcome_rows(found)), rows), file]


def _write(
    out: Path, numbers: str, where: dict[str, Any], results: Sequence[Measured], targets: Sequence[Target]
) -> Path:
    """Writes the results so far, so that an interrupted run leaves what it has measured."""
    about = {'environment': where, 'targets': list(outcome_rows(outcomes(results, targets)))}
    return write_numbers(out, numbers, (row for measured in results for row in rows_of(measured)), about)
