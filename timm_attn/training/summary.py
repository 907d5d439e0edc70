"""The mean and the spread of repeated runs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """n values, their mean, and their sample standard deviation (divisor n - 1; None for one value)."""

    n: int
    mean: float
    sd: float | None


def summary(values: Sequence[float]) -> Summary:
    """The summary of at least one value."""
    return Summary(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
