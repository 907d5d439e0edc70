"""Numbers as the papers print them, and rounding to their precision."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

UNITS: Mapping[str, int] = {'M': 10**6, 'G': 10**9, '%': 1}
_FIGURE = re.compile(r'\+?(\d+(?:\.\d+)?)([MG%]?)')
_TERM = re.compile(r'(\d*)([A-Za-z]?)(?:\^(\d))?(?:/([a-z]))?')


@dataclass(frozen=True)
class Printed:
    """A printed number, whose decimals are its precision, and its unit."""

    number: Decimal
    unit: int = 1

    def rounded(self, count: int | Decimal) -> Decimal:
        """A number in this figure's unit and precision, halves up."""
        return (Decimal(count) / self.unit).quantize(self.number, ROUND_HALF_UP)

    def fits(self, count: int | Decimal) -> bool:
        return self.rounded(count) == self.number


def parse_figure(printed: str, units: Mapping[str, int] = UNITS) -> Printed:
    """'11.69M', '+0.08G', '+3.7%' or '36'."""
    match = _FIGURE.fullmatch(printed)
    if match is None:
        raise ValueError(f'Not a figure: {printed!r}.')
    return Printed(Decimal(match[1]), units[match[2]] if match[2] else 1)


def parse_formula(printed: str, symbols: Mapping[str, int]) -> Printed:
    """A sum of terms such as '2C^2/r' with values for its symbols (SimAM Table 1)."""
    total = 0
    for term in printed.replace(' ', '').split('+'):
        match = _TERM.fullmatch(term)
        if match is None or not term:
            raise ValueError(f'Not a formula: {printed!r}.')
        factor, symbol, power, divisor = match.groups()
        value = int(factor or 1) * (symbols[symbol] if symbol else 1) ** int(power or 1)
        total += value // (symbols[divisor] if divisor else 1)
    return Printed(Decimal(total))
