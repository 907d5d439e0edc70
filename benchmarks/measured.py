"""Results of the cases: rows of numbers, and the outcome of each target."""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.cases import Case, all_cases
from benchmarks.measure import Spread, Times, interleaved
from benchmarks.targets import TARGETS, Target
from timm_attn.analysis.cost import finish

MEMORY = ('saved_mib', 'saved_inputs', 'peak_mib')  # the columns that Runner.memory may fill
BESIDE = ('to_plain', 'to_eager')  # the columns that Case.beside may fill

SECONDS, QUICK_SECONDS = 150, 8  # after which a case begins no further round: a slow machine has fewer


@dataclass(frozen=True)
class Measured:
    """A case and its results.

    Args:
        memory: by variant and column.
    """

    case: Case
    times: Times
    memory: Mapping[str, Mapping[str, float]]

    def speed(self, variant: str, reference: str = '') -> Spread:
        """Against the case's reference, or another variant, by the case's clock."""
        return self.times.speed(variant, reference or self.case.reference, self.case.clock)

    def beside(self, variant: str) -> dict[str, Spread]:
        """Its speed against each of the case's other references."""
        return {name: self.speed(variant, of(variant)) for name, of in self.case.beside.items()}

    def rate(self, variant: str) -> float:
        """In the case's unit, by its clock."""
        return self.times.rate(variant, self.case.clock) * self.case.unit[1]

    def quantity(self, target: Target, variant: str) -> Spread:
        """The value of a target's quantity for a variant."""
        if target.quantity == 'speed':
            return self.speed(variant, target.against)
        value = self.memory[variant][target.quantity]
        return Spread(value, value, value)


@dataclass(frozen=True)
class Outcome:
    """A target and its outcome.

    Args:
        measured: of its variant; None where it was not measured.
        elsewhere: the same for the best implementation elsewhere, in the same rounds.
        verdict: 'met', 'missed', or why it was not measured.
    """

    target: Target
    measured: Spread | None
    elsewhere: Spread | None
    verdict: str


def measure(case: Case, quick: bool = False) -> Measured:
    """Builds the variants of a case, times them in turn, measures their memory, and frees them.

    The full run does so in some fresh processes, one after another, each with its part of the rounds.
    """
    if quick or not case.starts:
        return _measure(case, *((case.quick, QUICK_SECONDS) if quick else (case.rounds, SECONDS)))
    rounds, limit, found = math.ceil(case.rounds / case.starts), SECONDS / case.starts, []
    for _ in range(case.starts):
        with ProcessPoolExecutor(1, get_context('spawn')) as process:
            found.append(process.submit(_measure_named, case.name, rounds, limit, torch.get_num_threads()).result())
    return Measured(case, Times.pooled([times for times, _ in found]), found[-1][1])


def _measure_named(name: str, rounds: int, limit: float, threads: int) -> tuple[Times, Mapping[str, Any]]:
    """The same of a row of cases.all_cases(), whose functions cannot be sent to another process."""
    case = next(case for case in all_cases() if case.name == name)
    with settings(threads):
        measured = _measure(case, rounds, limit)
    return measured.times, measured.memory


@contextmanager
def settings(threads: int) -> Iterator[None]:
    """torch's threads on the CPU, and cuDNN's fastest algorithms, inside the block."""
    before, tuned = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.benchmark = tuned


def _measure(case: Case, rounds: int, limit: float) -> Measured:
    device = torch.device(case.device)
    try:
        runners = case.build()
        times = interleaved(runners, rounds, limit, lambda: finish(device))
        return Measured(case, times, {name: runner.memory() for name, runner in runners.items()})
    finally:
        runners = {}
        gc.collect()
        if case.compiled or case.engines:
            torch.compiler.reset()
        if device.type == 'cuda':
            torch.cuda.empty_cache()


def rows_of(measured: Measured) -> Iterator[dict[str, Any]]:
    """One row per variant, for the file of numbers."""
    case = measured.case
    paper = {speed.model: speed.fps for speed in case.paper}
    for variant in measured.times.seconds:
        beside = measured.beside(variant)
        yield {
            'case': case.name,
            'variant': variant,
            'reference': case.reference,
            'rounds': len(measured.times.seconds[variant]),
            **_columns('ms', measured.times.milliseconds(variant)),
            **_columns('cpu_ms', measured.times.milliseconds(variant, 'cpu')),
            'clock': case.clock,
            **_columns('speed', measured.speed(variant)),
            **{key: value for column in BESIDE for key, value in _columns(column, beside.get(column)).items()},
            'rate': _short(measured.rate(variant)),
            'unit': case.unit[0],
            **{column: _short(measured.memory[variant].get(column)) for column in MEMORY},
            'paper_fps': paper.get(variant),
        }


def outcomes(results: Sequence[Measured], targets: Sequence[Target] = TARGETS) -> list[Outcome]:
    """The outcome of each target, with the reason where its case was not measured."""
    by_name = {measured.case.name: measured for measured in results}
    return [_outcome(target, by_name.get(target.case)) for target in targets]


def outcome_rows(found: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """One row per target, for the file of numbers."""
    for o in found:
        t = o.target
        yield {
            'what': t.what,
            'case': t.case,
            'variant': t.variant,
            'quantity': t.quantity,
            'target': t.limit,
            **_columns('measured', o.measured),
            'elsewhere': _short(o.elsewhere.median) if o.elsewhere else None,
            'verdict': o.verdict,
        }


def _outcome(target: Target, measured: Measured | None) -> Outcome:
    if measured is None:
        no_gpu = target.case.startswith('cuda/') and not torch.cuda.is_available()
        return Outcome(target, None, None, 'no GPU' if no_gpu else 'not in this run')
    if target.variant not in measured.times.seconds:
        return Outcome(target, None, None, 'not installed')
    value = measured.quantity(target, target.variant)
    elsewhere = measured.quantity(target, target.elsewhere) if target.elsewhere else None
    return Outcome(target, value, elsewhere, target.verdict(value))


def _columns(name: str, spread: Spread | None) -> dict[str, float | None]:
    median, low, high = spread or (None, None, None)
    return {name: _short(median), f'{name}_q1': _short(low), f'{name}_q3': _short(high)}


def _short(value: float | None) -> float | None:
    """Five significant digits."""
    return None if value is None else float(f'{value:.5g}')
