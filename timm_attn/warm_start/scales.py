"""Unknown scales that are related by factors: a union-find with exact fractions."""

from collections import Counter, defaultdict
from fractions import Fraction


class CannotFold(ValueError):
    """No scales satisfy all relations."""


PINNED = 0  # the number of the scale that is 1


class Scales:
    """Scales above 0, by their numbers, with relations s(b) = factor * s(a)."""

    def __init__(self) -> None:
        self._parent = [PINNED]
        self._ratio = [Fraction(1)]  # to the parent: s(n) = ratio * s(parent)
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

    def relate(self, a: int, b: int, factor: Fraction, why: str) -> None:
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

    def solve(self) -> list[Fraction]:
        """All scales. Where a group of related ones is free, as much weight as possible has the scale 1."""
        groups: dict[int, list[tuple[int, Fraction]]] = defaultdict(list)
        for number in range(len(self._parent)):
            root, ratio = self._find(number)
            groups[root].append((number, ratio))
        solved = [Fraction(1)] * len(self._parent)
        for members in groups.values():
            number, ratio = members[0]
            root_scale = 1 / ratio
            if number != PINNED:
                votes: Counter[Fraction] = Counter()
                for member, to_member in members:
                    votes[1 / to_member] += self._weight[member]
                root_scale = votes.most_common(1)[0][0]
            for member, to_member in members:
                solved[member] = root_scale * to_member
        return solved

    def _find(self, number: int) -> tuple[int, Fraction]:
        """The root of a scale's group, and its ratio to the root's."""
        ratio = Fraction(1)
        while self._parent[number] != number:
            ratio *= self._ratio[number]
            number = self._parent[number]
        return number, ratio
