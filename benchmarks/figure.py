"""Bars of the variants' speeds."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
_TITLE_LETTERS = 34  # of a line above a panel
# Larger letters than in other figures: a page shows a picture of many panels small
LARGE: Any = {
    'font.size': 13,
    'axes.titlesize': 12,
    'axes.labelsize': 13,
    'xtick.labelsize': 12,
    'ytick.labelsize': 13,
    'legend.fontsize': 13,
}
# Fields of SpeedBar that are marked, with their names and looks
_MARKS: Mapping[str, Mapping[str, Any]] = {
    'target': dict(label='target', marker='D', color=COLOURS[1]),
    'paper': dict(label="the paper's ratio", marker='o', color=COLOURS[2]),
}
_MARK: Any = dict(linestyle='', markersize=8, markeredgecolor='white', markeredgewidth=1, zorder=3)


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
    from matplotlib import rc_context

    with rc_context(LARGE):
        shown = list(panels)
        columns = min(_COLUMNS, len(shown))
        rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
        bars = [max(len(panel.bars) for panel in row) for row in rows]
        size = (6.8 * columns, 1.6 + sum(1.3 + 0.34 * n for n in bars))
        heights = {'height_ratios': [2 + n for n in bars]}
        figure, axes = new_axes(len(rows), columns, size, title, gridspec_kw=heights)
        widen(figure)
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
    ax.barh(places, speeds, color=COLOURS[0], height=0.7, xerr=whiskers, error_kw=dict(ecolor='black', elinewidth=1.5))
    ax.axvline(1, color='black', linestyle='dashed', linewidth=1)
    for field, look in _MARKS.items():
        ax.plot(_marked(panel, field), places, **_MARK, **look)
    ends = [*(bar.high for bar in panel.bars), *(v for field in _MARKS for v in _marked(panel, field))]
    whole = ', '.join(part.replace(' ', '\u00a0') for part in panel.title.split(', '))  # lines break at commas
    lines = textwrap.wrap(whole, _TITLE_LETTERS, break_long_words=False)
    ax.set_title('\n'.join([*lines, f'{panel.reference} = 1']))
    ax.set(yticks=places, yticklabels=[f'{bar.name}  {bar.speed:.2f}' for bar in panel.bars])
    ax.set_xlim(0, 1.08 * max(1.0, *filter(math.isfinite, ends)))
    ax.set_ylim(most - 0.5, -0.5)
    few_ticks(ax)


def widen(figure: 'Figure') -> None:
    """Room beside the panels: half of the last number of an axis lies outside."""
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.15, h_pad=0.08)


def few_ticks(ax: 'Axes') -> None:
    """So that large numbers do not touch."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5))


def _marked(panel: SpeedPanel, field: str) -> list[float]:
    """The values of a field, NaN where a bar has none."""
    values = (getattr(bar, field) for bar in panel.bars)
    return [math.nan if value is None else value for value in values]


def _explain(figure: 'Figure', panels: Sequence[SpeedPanel]) -> None:
    """The legend, with the marks that occur, as they are in the panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    there = [f for f in _MARKS if any(math.isfinite(v) for panel in panels for v in _marked(panel, f))]
    handles = [
        Patch(label='median', color=COLOURS[0]),
        Line2D([], [], label='quartiles', color='black', linewidth=1.5),
        Line2D([], [], label='reference', color='black', linestyle='dashed', linewidth=1),
        *(Line2D([], [], **_MARK, **_MARKS[field]) for field in there),
    ]
    figure.legend(handles=handles, loc='outside lower left', ncols=min(3, len(handles)), frameon=False)
