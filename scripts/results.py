"""Measured results of trainings: one JSON file per run, and the table that they give."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from scipy import stats

from timm_attn.files import write_json
from timm_attn.training.summary import summary


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run measured, and all that is needed to repeat it."""

    model: str
    recipe: str
    seed: int
    epochs: int
    dataset: str
    split: str
    images: int
    top1: float  # %, after the last epoch
    hardware: str
    command: str
    date: str
    torch: str
    timm: str


def save_result(result: Result, folder: Path) -> Path:
    """Writes a run's file, MODEL.seedN.json, in place of an earlier one of the same model and seed."""
    path = folder / f'{result.model}.seed{result.seed}.json'
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(result))
    return path


def load_results(folder: Path) -> list[Result]:
    """The runs of a folder, by name.

    Raises:
        ValueError: a file is not a result.
    """
    results = []
    for path in sorted(folder.glob('*.json')):
        try:
            values = json.loads(path.read_text(encoding='utf-8'))
            results.append(Result(**values))
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            expected = ', '.join(f.name for f in fields(Result))
            raise ValueError(f'{path} is not a result ({error}); it must have {expected}.') from error
    return results


def compare(results: Iterable[Result], plain: str) -> list[dict[str, str]]:
    """One row per model, the plain net first: mean, spread, number of seeds, and the difference from the plain net.

    The difference stands with its 95 % confidence interval (Welch). It is inside the noise if the interval has 0, and
    with one run it has none.

    Raises:
        ValueError: the plain net has no result, or the runs are of different recipes, lengths or images.
    """
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result.model, []).append(result)
    if plain not in runs:
        raise ValueError(f'There is no result of {plain!r} to compare with, only of {", ".join(runs) or "nothing"}.')
    kinds = {(r.recipe, r.epochs, r.dataset, r.split, r.images) for rs in runs.values() for r in rs}
    if len(kinds) > 1:
        raise ValueError(f'Results of different trainings cannot be compared: {sorted(kinds)}.')
    names = [plain, *(name for name in runs if name != plain)]
    return [_row(name, runs[name], None if name == plain else runs[plain]) for name in names]


def _row(name: str, runs: Sequence[Result], plain: Sequence[Result] | None) -> dict[str, str]:
    found = summary([r.top1 for r in runs])
    return {
        'model': f'`{name}`',
        'top-1 %, mean': f'{found.mean:.2f}',
        'sd': '' if found.sd is None else f'{found.sd:.2f}',
        'seeds': f'n = {found.n}',
        'minus plain [95 %]': _difference([r.top1 for r in runs], [r.top1 for r in plain]) if plain else '',
        'epochs': str(runs[0].epochs),
        'hardware': ', '.join(sorted({r.hardware for r in runs})),
    }


def _difference(found: Sequence[float], base: Sequence[float]) -> str:
    difference = f'{statistics.fmean(found) - statistics.fmean(base):+.2f}'
    interval = welch(found, base)
    if interval is None:
        return f'{difference}, no interval'
    verdict = ', inside the noise' if interval[0] <= 0 <= interval[1] else ''
    return f'{difference} [{interval[0]:+.2f}, {interval[1]:+.2f}]{verdict}'


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float] | None:
    """Welch's 95 % confidence interval of mean(a) - mean(b), without the assumption of equal variances.

    None where either has one value alone, or all values of both are equal: nothing is known about the spread then.
    """
    if min(len(a), len(b)) < 2 or len({*a}) == len({*b}) == 1:
        return None
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)
