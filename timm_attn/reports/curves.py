"""`timm-attn curves`: the curves of several runs in one picture, from their summary.csv: ours or timm's train.py's."""

import csv
from collections.abc import Sequence
from pathlib import Path

from timm_attn import figures
from timm_attn.figures.canvas import check_format

METRICS = ('loss', 'top1', 'top5')
# Column names of the runner and of train.py -> those of the picture.
_NAMES = {'loss': 'train_loss', 'top1': 'val_top1', 'top5': 'val_top5'} | {f'eval_{m}': f'val_{m}' for m in METRICS}


def curves(runs: Sequence[Path], out: Path, metrics: Sequence[str] = ('top1', 'top5')) -> Path:
    """Draws the training and validation curves of runs, each a folder with a summary.csv, named by its folder.

    A metric that is 100 % throughout, such as the top-5 of three classes, has no panel beside others.

    Args:
        out: the figure, .png or .svg.

    Raises:
        FileNotFoundError: a run has no summary.csv.
        ValueError: a summary.csv lacks the metrics, or is damaged.
        RuntimeError: matplotlib is not installed.
    """
    figures.require_matplotlib()
    check_format(out)
    if len({run.resolve() for run in runs}) < len(runs):
        raise ValueError(f'A run is named twice: {", ".join(map(str, runs))}.')
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    read = {name: _columns(run / 'summary.csv', metrics) for name, run in zip(names, runs, strict=True)}
    told = [m for m in metrics if any(value != 100 for columns in read.values() for value in columns[f'val_{m}'])]
    return figures.save(figures.curves_figure(read, told or metrics), out)


def _columns(path: Path, metrics: Sequence[str]) -> dict[str, list[float]]:
    if not path.is_file():
        raise FileNotFoundError(f'There is no {path}: each run must be a folder in which a training wrote its table.')
    with path.open(newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    try:
        columns = {_NAMES.get(name, name): [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path} is damaged: {error}.') from error
    if columns.get('epoch', [1])[0] == 0 and 'eval_loss' in rows[0]:  # train.py counts from 0
        columns['epoch'] = [epoch + 1 for epoch in columns['epoch']]
    missing = [m for m in metrics if f'val_{m}' not in columns]
    if missing:
        raise ValueError(f'{path} has no {" and no ".join(missing)}, only {", ".join(columns) or "nothing"}.')
    return columns
