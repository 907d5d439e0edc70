"""Numbers that the papers compute from other numbers that they print."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal


def gain(operands: Sequence[Decimal]) -> Decimal:
    """BAM Table 5: how much larger the second is than the first, in percent of the first."""
    first, second = operands
    return (second - first) / first * 100


def mean(operands: Sequence[Decimal]) -> Decimal:
    """BAM Table 6: mAP@[.5,.95], the mean of the ten mAPs of Table 5."""
    return sum(operands, Decimal()) / len(operands)


ARITHMETIC: Mapping[str, Callable[[Sequence[Decimal]], Decimal]] = {'gain': gain, 'mean': mean}
