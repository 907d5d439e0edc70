"""Unknown scales that are related by factors: a union-find with exact fractions and symbols for gates per channel."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction


class CannotFold(ValueError):
    """No scales satisfy all relations."""


PINNED = 0  # the number of the scale that is 1


@dataclass(frozen=True)
class Gated:
    """number * a * b / c ..., where a, b, c are scales per channel that stay symbols, so that they cancel exactly."""

    number: Fraction
    powers: tuple[tuple[str, int], ...]  # by the symbols' names, in their order; none is 0

    def __mul__(self, other: 'Scale') -> 'Scale':
        powers = dict(self.powers)
        for name, power in _parts(other)[1]:
            powers[name] = powers.get(name, 0) + power
        left = tuple(sorted((name, power) for name, power in powers.items() if power))
        number = self.number * _parts(other)[0]
        return Gated(number, left) if left else number

    __rmul__ = __mul__

    def __truediv__(self, other: 'Scale') -> 'Scale':
        return self * _inverse(other)

    def __rtruediv__(self, other: 'Scale | int') -> 'Scale':
        return _inverse(self) * Fraction(other) if isinstance(other, int) else _inverse(self) * other

    def __str__(self) -> str:
        return ' '.join([str(self.number), *(f'gate({name})^{power}' for name, power in self.powers)])


Scale = Fraction | Gated


def _parts(scale: Scale) -> tuple[Fraction, tuple[tuple[str, int], ...]]:
    return (scale.number, scale.powers) if isinstance(scale, Gated) else (scale, ())


def _inverse(scale: Scale) -> Scale:
    number, powers = _parts(scale)
    return Gated(1 / number, tuple((name, -power) for name, power in powers)) if powers else 1 / number


class Scales:
    """Scales above 0, by their numbers, with relations s(b) = factor * s(a)."""

    def __init__(self) -> None:
        self._parent = [PINNED]
        self._ratio: list[Scale] = [Fraction(1)]  # to the parent: s(n) = ratio * s(parent)
        self._size = [1]
        self._weight = [0]

    def new(self, weight: int = 1) -> int:
        """The number of a new scale; weight: how much it matters that it becomes 1."""
        number = len(self._parent)
        self._parent.append(number)
        self._ratio.append(Fraction(1))
        self._size.append(1)
        self._weight.append(weight)
        return number

    def prefer(self, number: int, weight: int) -> None:
        """Makes it matter more that a scale becomes 1."""
        self._weight[number] += weight

    def relate(self, a: int, b: int, factor: Scale, why: str) -> None:
        """Demands s(b) = factor * s(a).

        Raises:
            CannotFold: earlier relations demand another factor.
        """
        (root_a, to_a), (root_b, to_b) = self._find(a), self._find(b)
        if root_a == root_b:
            if to_b != factor * to_a:
                raise CannotFold(
                    f'{why} needs the factor {factor} between two maps, but what cannot be scaled there (an '
                    f'activation, or weights that are frozen or shared) makes it {to_b / to_a}'
                )
            return
        if self._size[root_a] < self._size[root_b]:
            root_a, root_b, to_a, to_b, factor = root_b, root_a, to_b, to_a, 1 / factor
        self._parent[root_b] = root_a
        self._ratio[root_b] = factor * to_a / to_b
        self._size[root_a] += self._size[root_b]

    def is_pinned(self, number: int) -> bool:
        """Whether the relations so far make a scale 1."""
        return self._find(number) == self._find(PINNED)

    def solve(self) -> list[Scale]:
        """All scales. Where a group of related ones is free, as much weight as possible has the scale 1."""
        groups: dict[int, list[tuple[int, Scale]]] = defaultdict(list)
        for number in range(len(self._parent)):
            root, ratio = self._find(number)
            groups[root].append((number, ratio))
        solved: list[Scale] = [Fraction(1)] * len(self._parent)
        for members in groups.values():
            number, ratio = members[0]
            root_scale = 1 / ratio
            if number != PINNED:
                votes: Counter[Scale] = Counter()
                for member, to_member in members:
                    votes[1 / to_member] += self._weight[member]
                root_scale = votes.most_common(1)[0][0]
            for member, to_member in members:
                solved[member] = root_scale * to_member
        return solved

    def _find(self, number: int) -> tuple[int, Scale]:
        """The root of a scale's group, and its ratio to the root's."""
        ratio: Scale = Fraction(1)
        while self._parent[number] != number:
            ratio *= self._ratio[number]
            number = self._parent[number]
        return number, ratio
