"""Training and validation curves of runs (SimAM Figure 5)."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = {'train': 'dashed', 'val': 'solid'}


@styled
def curves_figure(runs: Mapping[str, Mapping[str, Sequence[float]]], metrics: Sequence[str]) -> 'Figure':
    """Training (dashed) and validation (solid) curves of runs, one panel per metric.

    Args:
        runs: the columns of each run's table by its name: 'epoch', and 'train_' and 'val_' with a metric.
    """
    size = (4.8 * len(metrics) + 0.6, 3.8 + 0.2 * len(runs))
    figure, (axes,) = new_axes(1, len(metrics), size, 'Curves of training (dashed) and validation')
    for ax, metric in zip(axes, metrics, strict=True):
        for (name, columns), colour in zip(runs.items(), cycle(COLOURS), strict=False):
            for kind, dashes in _KINDS.items():
                if f'{kind}_{metric}' in columns:
                    label = name if kind == 'val' else f'{name}, training'
                    values = columns[f'{kind}_{metric}']
                    style = dict(color=colour, linestyle=dashes, linewidth=1.4, marker='o' if len(values) == 1 else '')
                    ax.plot(columns['epoch'], values, label=label, **style)  # a line of one epoch is invisible
        ax.set(xlabel='epoch', ylabel=metric if metric == 'loss' else f'{metric} in %')
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower left', ncols=2, frameon=False)
    return figure
