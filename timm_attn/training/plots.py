"""Pictures of sweeps and of training curves, with matplotlib (the extra `plots`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm_attn.training.summary import summary


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise RuntimeError("Pictures need matplotlib: pip install 'timm-attn[plots]'.") from error
    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot


def draw_sweep(path: Path, name: str, values: Sequence[str], top1: Sequence[Sequence[float]], title: str) -> None:
    """Mean and standard deviation of the runs of each value, as in the SimAM paper's Figure 4, and each run.

    A value without runs, because they diverged, has its place on the axis only.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6, 4))
    found = {place: summary(runs) for place, runs in enumerate(top1) if runs}
    axes.errorbar(
        list(found), [s.mean for s in found.values()], [s.sd or 0 for s in found.values()], marker='o', capsize=4
    )
    for place, runs in enumerate(top1):
        axes.plot([place] * len(runs), runs, '.', color='grey', markersize=4)
    axes.set_xticks(range(len(values)), values)
    axes.set(xlabel=name, ylabel='top-1 % on held-out training images', title=title)
    _save(figure, path)


def draw_curves(path: Path, runs: Mapping[str, Mapping[str, Sequence[float]]], metrics: Sequence[str]) -> None:
    """Training (dashed) and validation (solid) curves of runs, one panel per metric, as in SimAM's Figure 5."""
    plt = pyplot()
    figure, panels = plt.subplots(1, len(metrics), figsize=(6 * len(metrics), 4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        for i, (name, columns) in enumerate(runs.items()):
            for column, style in ((f'train_{metric}', '--'), (f'val_{metric}', '-')):
                if column in columns:
                    label = name if style == '-' else f'{name}, training'
                    axes.plot(columns['epoch'], columns[column], style, color=f'C{i % 10}', label=label)
        axes.set(xlabel='epoch', ylabel=metric if metric == 'loss' else f'{metric} %')
        axes.legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    partial = path.with_name(f'partial.{path.name}')  # the ending says the format
    figure.savefig(partial, dpi=150)
    partial.replace(path)
