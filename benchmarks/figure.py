"""Bars of the variants' speeds."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_TITLE_LETTERS = 36  # of a line above a panel
# Fields of SpeedBar that are marked, with their names and looks in the legend
_MARKS: Mapping[str, Mapping[str, Any]] = {
    'target': dict(label='target', marker='D', color=COLOURS[1]),
    'paper': dict(label="the paper's ratio", marker='o', color=COLOURS[2]),
}


class SpeedBar(NamedTuple):
    """A variant's speed in units of the reference's: median and quartiles, the target, a paper's ratio."""

    name: str
    speed: float
    low: float
    high: float
    target: float | None = None
    paper: float | None = None


class SpeedPanel(NamedTuple):
    """The variants of one case."""

    title: str
    reference: str
    bars: Sequence[SpeedBar]


@styled
def benchmark_figure(title: str, panels: Iterable[SpeedPanel]) -> 'Figure':
    """One panel per case, one bar per variant with its quartiles; the dashed line is the reference."""
    shown = list(panels)
    columns = min(_COLUMNS, len(shown))
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    bars = [max(len(panel.bars) for panel in row) for row in rows]
    size = (max(6.5, 4.8 * columns), 1.2 + sum(1.0 + 0.2 * n for n in bars))
    heights = {'height_ratios': [2 + n for n in bars]}
    figure, axes = new_axes(len(rows), columns, size, title, gridspec_kw=heights)
    for i, (ax, panel) in enumerate(zip(axes.flat, shown, strict=False)):
        _show(ax, panel, bars[i // columns])
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    _explain(figure, shown)
    return figure


def _show(ax: 'Axes', panel: SpeedPanel, most: int) -> None:
    """Bars as thick as those of the row's largest panel."""
    places = range(len(panel.bars))
    speeds = [bar.speed for bar in panel.bars]
    whiskers = [[bar.speed - bar.low for bar in panel.bars], [bar.high - bar.speed for bar in panel.bars]]
    ax.barh(places, speeds, color=COLOURS[0], height=0.7, xerr=whiskers, error_kw=dict(ecolor='black', elinewidth=1))
    ax.axvline(1, color='black', linestyle='dashed', linewidth=0.8)
    for field, look in _MARKS.items():
        ax.scatter(_marked(panel, field), places, s=22, edgecolors='white', linewidths=0.6, zorder=3, **look)
    ends = [*(bar.high for bar in panel.bars), *(v for field in _MARKS for v in _marked(panel, field))]
    ax.set_title('\n'.join([*textwrap.wrap(panel.title, _TITLE_LETTERS), f'{panel.reference} = 1']))
    ax.set(yticks=places, yticklabels=[f'{bar.name}  {bar.speed:.2f}' for bar in panel.bars])
    ax.set_xlim(0, 1.08 * max(1.0, *filter(math.isfinite, ends)))
    ax.set_ylim(most - 0.5, -0.5)


def _marked(panel: SpeedPanel, field: str) -> list[float]:
    """The values of a field, NaN where a bar has none."""
    values = (getattr(bar, field) for bar in panel.bars)
    return [math.nan if value is None else value for value in values]


def _explain(figure: 'Figure', panels: Sequence[SpeedPanel]) -> None:
    """The legend, with the marks that occur."""
    from matplotlib.lines import Line2D

    there = [f for f in _MARKS if any(math.isfinite(v) for panel in panels for v in _marked(panel, f))]
    handles = [
        Line2D([], [], label='median and quartiles', color=COLOURS[0], linewidth=5),
        Line2D([], [], label='reference', color='black', linestyle='dashed', linewidth=0.8),
        *(Line2D([], [], linestyle='', **_MARKS[field]) for field in there),
    ]
    figure.legend(handles=handles, loc='outside lower left', ncols=len(handles), frameon=False)
