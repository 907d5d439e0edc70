"""Speeds of nets in engines: a row per engine, a mark per net."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.figure import LARGE, few_ticks, widen
from benchmarks.measure import Spread
from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = 'os^Dv'
_PLAIN: Any = dict(color='black', marker='o', markerfacecolor='white')


@styled
def engine_figure(title: str, panels: Sequence[tuple[str, Mapping[str, Spread]]]) -> 'Figure':
    """One panel per case, from its title and the speeds of 'net/engine'; whiskers are quartiles."""
    from matplotlib import rc_context

    with rc_context(LARGE):
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        marks = max(len(_parts(speeds, 1)) * len(_parts(speeds, 0)) for _, speeds in panels)
        figure, axes = new_axes(rows, columns, (6.8 * columns, 1.8 + rows * (1.2 + 0.09 * marks)), title)
        widen(figure)
        nets = list(dict.fromkeys(net for _, speeds in panels for net in _parts(speeds, 0)))
        looks = {net: _look(i) for i, net in enumerate(nets)}
        for ax, (name, speeds) in zip(axes.flat, panels, strict=False):
            _show(ax, name, speeds, looks)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        handles, labels = max((ax.get_legend_handles_labels() for ax in axes.flat), key=lambda found: len(found[1]))
        figure.legend(handles, labels, loc='outside lower left', ncols=min(6, len(labels)), frameon=False)
        return figure


def _look(number: int) -> dict[str, Any]:
    """The plain net in black, then five colours, full and again hollow."""
    if number == 0:
        return _PLAIN
    again, colour = divmod(number - 1, len(COLOURS))
    return dict(color=COLOURS[colour], marker=_MARKERS[colour], markerfacecolor='white' if again else COLOURS[colour])


def _parts(speeds: Mapping[str, Spread], part: int) -> list[str]:
    """The nets, or the engines, in order."""
    return list(dict.fromkeys(variant.split('/')[part] for variant in speeds))


def _show(ax: 'Axes', title: str, speeds: Mapping[str, Spread], looks: Mapping[str, Any]) -> None:
    nets, engines = _parts(speeds, 0), _parts(speeds, 1)
    for i, net in enumerate(nets):
        rows = [row for row, engine in enumerate(engines) if f'{net}/{engine}' in speeds]
        found = [speeds[f'{net}/{engines[row]}'] for row in rows]
        places = [row + (i - (len(nets) - 1) / 2) * 0.7 / len(nets) for row in rows]
        medians = [s.median for s in found]
        whiskers = [[s.median - s.low for s in found], [s.high - s.median for s in found]]
        ax.errorbar(medians, places, xerr=whiskers, linestyle='', markersize=8, label=net, **looks[net])
    ax.axvline(1, color='black', linestyle='dashed', linewidth=1)
    for row in range(len(engines) - 1):
        ax.axhline(row + 0.5, color='#dddddd', linewidth=1, zorder=0)
    ax.set(yticks=range(len(engines)), yticklabels=engines, xlabel="images per CPU second, timm's plain eager net = 1")
    ax.set_title(title)
    ax.set_xlim(0, 1.06 * max(s.high for s in speeds.values()))
    ax.set_ylim(len(engines) - 0.5, -0.5)
    few_ticks(ax)
