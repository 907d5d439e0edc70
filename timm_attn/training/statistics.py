"""Means, spreads, and what a difference of two means is worth."""

import math
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


def welch(a: Summary, b: Summary, confidence: float = 0.95) -> tuple[float, float] | None:
    """Welch's confidence interval of mean(a) - mean(b), without the assumption of equal variances.

    d +- t(nu) sqrt(s_a^2/n_a + s_b^2/n_b), nu by Welch and Satterthwaite. None where either has one value alone, or
    all values of both are equal: nothing is known about the spread then.
    """
    if a.sd is None or b.sd is None:
        return None
    u, v = a.sd**2 / a.n, b.sd**2 / b.n
    if not u + v:
        return None
    degrees = (u + v) ** 2 / (u**2 / (a.n - 1) + v**2 / (b.n - 1))
    half = t_quantile(0.5 + confidence / 2, degrees) * math.sqrt(u + v)
    return a.mean - b.mean - half, a.mean - b.mean + half


def t_quantile(p: float, degrees: float) -> float:
    """The quantile p > 0.5 of Student's t distribution, by bisection of its integral, to about 1e-6."""
    low, high = 0.0, 1.0
    while _t_mass(high, degrees) < p - 0.5:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_mass(middle, degrees) < p - 0.5 else (low, middle)
    return high


def _t_mass(t: float, degrees: float, steps: int = 2000) -> float:
    """The probability between 0 and t: with x = sqrt(nu) tan(a), Simpson's rule over cos(a)^(nu-1)."""
    end = math.atan(t / math.sqrt(degrees))
    width = end / steps
    weights = (1 if i in (0, steps) else 4 if i % 2 else 2 for i in range(steps + 1))
    integral = sum(w * math.cos(i * width) ** (degrees - 1) for i, w in enumerate(weights)) * width / 3
    return integral * math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
