"""The interleaved clock: the variants of a case take turns, so that other load on the machine slows all alike."""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

WARM_UP = 2  # calls of a variant before its first time: allocators, cuDNN's and oneDNN's choices, compilation
LEAST_ROUNDS = 3
LEAST_SECONDS = 0.005  # shorter calls are repeated within a turn
Clock = Literal['wall', 'cpu']  # time that passes, or that this process's threads compute


@dataclass(frozen=True)
class Runner:
    """A variant of a case, built and ready.

    Args:
        call: what is timed.
        around: the context it runs in, entered before the clock starts.
        work: the work of a call in the case's unit (images, or bytes that must be read and written).
        memory: its memory in MiB, by column of the numbers; called once, after the clock.
    """

    call: Callable[[], Any]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    work: float = 1
    memory: Callable[[], Mapping[str, float]] = dict


class Spread(NamedTuple):
    """The median and the quartiles of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread':
        low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(median, low, high)


@dataclass(frozen=True)
class Times:
    """Seconds per call of each variant, round by round, by both clocks, and the work of a call."""

    seconds: Mapping[str, Sequence[float]]
    work: Mapping[str, float] = field(default_factory=dict)
    cpu: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def pooled(cls, parts: 'Sequence[Times]') -> 'Times':
        """The rounds of several runs of the same variants, one after another."""
        seconds, cpu = (
            {name: [value for part in parts for value in part.by(clock)[name]] for name in parts[0].by(clock)}
            for clock in get_args(Clock)
        )
        return cls(seconds, parts[0].work, cpu)

    def by(self, clock: Clock) -> Mapping[str, Sequence[float]]:
        return self.cpu if clock == 'cpu' else self.seconds

    def milliseconds(self, variant: str, clock: Clock = 'wall') -> Spread:
        return Spread.of([1000 * s for s in self.by(clock)[variant]])

    def rate(self, variant: str, clock: Clock = 'wall') -> float:
        """Work per second in the median round."""
        return self.work.get(variant, 1) / self.milliseconds(variant, clock).median * 1000

    def speed(self, variant: str, reference: str, clock: Clock = 'wall') -> Spread:
        """The ratio of the two rates, round by round: 2 is twice as fast as the reference."""
        work = self.work.get(variant, 1) / self.work.get(reference, 1)
        rounds = zip(self.by(clock)[variant], self.by(clock)[reference], strict=True)
        return Spread.of([work * theirs / ours for ours, theirs in rounds])


def interleaved(
    runners: Mapping[str, Runner],
    rounds: int,
    limit: float = math.inf,
    finish: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> Times:
    """Times every variant once per round, after a warm-up of each; each round starts with another variant.

    Args:
        limit: the seconds after which no round begins, apart from the first LEAST_ROUNDS.
        finish: waits until the device is idle.
    """
    names = list(runners)
    warm = [_warm_up(runner, finish, clock) for runner in runners.values()]
    calls = max(1, math.ceil(LEAST_SECONDS / max(min(warm), 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    start = clock()
    try:
        for turn in range(rounds):
            if turn >= LEAST_ROUNDS and clock() - start > limit:
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                with runners[name].around():
                    before = cpu_clock()
                    seconds[name].append(_timed(runners[name].call, calls, finish, clock))
                    cpu[name].append((cpu_clock() - before) / calls)
    finally:
        gc.enable()
    return Times(seconds, {name: runner.work for name, runner in runners.items()}, cpu)


def _warm_up(runner: Runner, finish: Callable[[], None], clock: Callable[[], float]) -> float:
    """The seconds of its last call."""
    with runner.around():
        return [_timed(runner.call, 1, finish, clock) for _ in range(WARM_UP)][-1]


def _timed(call: Callable[[], Any], calls: int, finish: Callable[[], None], clock: Callable[[], float]) -> float:
    finish()
    start = clock()
    for _ in range(calls):
        call()
    finish()
    return (clock() - start) / calls
