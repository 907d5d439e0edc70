"""Training and validation curves of runs (SimAM Figure 5)."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = {'train': 'dashed', 'val': 'solid'}
_UNITS = {'loss': 'loss', 'top1': 'top-1 in %', 'top5': 'top-5 in %'}


@styled
def curves_figure(runs: Mapping[str, Mapping[str, Sequence[float]]], metrics: Sequence[str]) -> 'Figure':
    """Training (dashed) and validation (solid) curves of runs, one panel per metric.

    Args:
        runs: the columns of each run's table by its name: 'epoch', and 'train_' and 'val_' with a metric.
    """
    from matplotlib.ticker import MaxNLocator

    size = (4.8 * len(metrics) + 0.6, 3.8 + 0.2 * len(runs))
    figure, (axes,) = new_axes(1, len(metrics), size, 'Curves of training (dashed) and validation')
    for ax, metric in zip(axes, metrics, strict=True):
        for (name, columns), colour in zip(runs.items(), cycle(COLOURS), strict=False):
            for kind, dashes in _KINDS.items():
                if f'{kind}_{metric}' in columns:
                    label = name if kind == 'val' else f'{name}, training'
                    values = columns[f'{kind}_{metric}']
                    look: dict[str, Any] = dict(color=colour, linestyle=dashes, linewidth=1.4, marker='')
                    if len(values) == 1:  # whose line is invisible
                        look.update(marker='o', markerfacecolor='none' if kind == 'train' else colour)
                    ax.plot(columns['epoch'], values, label=label, **look)
        ax.set(xlabel='epoch', ylabel=_UNITS[metric])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower left', ncols=2, frameon=False)
    return figure
