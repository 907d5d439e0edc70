"""The clock: variants take turns, rounds are ratios, nothing begins after the limit."""

from dataclasses import replace

import pytest

from benchmarks.measure import LEAST_ROUNDS, WARM_UP, Runner, Spread, Times, interleaved


class Clock:
    """Time that passes only in the calls of variants, each of which is written down."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, ''

    def __call__(self) -> float:
        return self.now

    def runner(self, name: str, *seconds: float) -> Runner:
        """A variant that takes these seconds, call by call and from the start again."""
        made = 0

        def call() -> None:
            nonlocal made
            self.now, self.calls, made = self.now + seconds[made % len(seconds)], self.calls + name, made + 1

        return Runner(call)


def test_variants_take_turns_and_another_one_begins_each_round() -> None:
    clock = Clock()
    runners = {name: clock.runner(name, seconds) for name, seconds in (('a', 1.0), ('b', 2.0), ('c', 4.0))}
    times = interleaved(runners, 4, clock=clock)
    warm = 'a' * WARM_UP + 'b' * WARM_UP + 'c' * WARM_UP
    assert clock.calls == warm + 'abc' + 'bca' + 'cab' + 'abc'
    assert times.seconds == {'a': [1.0] * 4, 'b': [2.0] * 4, 'c': [4.0] * 4}


def test_short_calls_are_repeated_as_often_for_each_variant() -> None:
    clock = Clock()
    times = interleaved({'a': clock.runner('a', 0.001), 'b': clock.runner('b', 0.1)}, 1, clock=clock)
    assert clock.calls[2 * WARM_UP :] == 'aaaaabbbbb'
    assert times.milliseconds('a').median == pytest.approx(1) and times.milliseconds('b').median == pytest.approx(100)


def test_no_round_begins_after_the_limit() -> None:
    clock = Clock()
    rounds = [len(interleaved({'a': clock.runner('a', 1.0)}, 9, limit, clock=clock).seconds['a']) for limit in (0, 5)]
    assert rounds == [LEAST_ROUNDS, 6]


def test_the_clock_stands_while_a_context_is_entered_and_waits_for_the_device() -> None:
    clock, inside = Clock(), []

    class Context:
        def __enter__(self) -> None:
            clock.now += 100
            inside.append(True)

        def __exit__(self, *error: object) -> None:
            clock.now += 100
            inside.pop()

    def finish() -> None:
        clock.now += 0.5
        assert inside

    times = interleaved({'a': replace(clock.runner('a', 1.0), around=Context)}, 3, finish=finish, clock=clock)
    assert times.seconds['a'] == [1.5] * 3 and not inside


def test_rounds_of_several_starts_are_pooled() -> None:
    parts = [Times({'a': [1, 2]}, {'a': 8}, {'a': [3, 4]}), Times({'a': [5]}, {'a': 8}, {'a': [6]})]
    assert Times.pooled(parts) == Times({'a': [1, 2, 5]}, {'a': 8}, {'a': [3, 4, 6]})


def test_ratios_are_those_of_each_round() -> None:
    """A round in which the machine was slow has the same ratio: the ratio of the medians would not see that."""
    times = Times({'plain': [1, 10, 2], 'ours': [2, 5, 4]}, {'plain': 1, 'ours': 1})
    assert times.speed('ours', 'plain') == Spread(0.5, 0.5, 1.25)
    assert times.speed('plain', 'plain') == Spread(1, 1, 1)
    twice = Times(times.seconds, {'plain': 8, 'ours': 16})
    assert twice.speed('ours', 'plain') == Spread(1, 1, 2.5) and twice.rate('ours') == 16 / 4
