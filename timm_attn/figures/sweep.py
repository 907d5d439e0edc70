"""The accuracy over the values of an option (SimAM Figure 4)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def sweep_figure(
    title: str,
    option: str,
    values: Sequence[str],
    top1: Sequence[Sequence[float]],
    means: Sequence[float | None],
    deviations: Sequence[float | None],
) -> 'Figure':
    """Mean and standard deviation of the runs of each value, and each run.

    A value without runs, because they diverged, has its place on the axis only.
    """
    figure, ((ax,),) = new_axes(1, 1, (6, 4), title)
    places = [place for place, mean in enumerate(means) if mean is not None]
    spread = [deviations[i] or 0 for i in places]
    ax.errorbar(places, [means[i] for i in places], spread, color=COLOURS[0], marker='o', capsize=4)
    for place, runs in enumerate(top1):
        ax.plot([place] * len(runs), runs, '.', color='grey', markersize=4, zorder=3)
    ax.set_xticks(range(len(values)), values)
    ax.set(xlabel=option, ylabel='top-1 in % on held-out training images')
    return figure
