"""Bars of the layers' costs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from timm_attn.analysis import Cost
from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The quantity of each panel, its unit, and its value for a layer
QUANTITIES: Sequence[tuple[str, str, Callable[[Cost], float]]] = (
    ('parameters', '', lambda cost: cost.params),
    ('multiply-accumulates', '', lambda cost: cost.macs),
    ('bytes moved', 'B', lambda cost: cost.moved_bytes),
    ('bytes saved for backward', 'B', lambda cost: cost.saved_bytes),
    ('time', 's', lambda cost: cost.milliseconds / 1000),
)


@styled
def cost_figure(title: str, layers: Sequence[Cost], net: Cost) -> 'Figure':
    """One panel per quantity, one bar per layer; a panel's title gives the layers' share of the whole net."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    size = (2.6 * len(QUANTITIES) + 1, 1.5 + 0.2 * len(layers))
    figure, (axes,) = new_axes(1, len(QUANTITIES), size, title, sharey=True)
    names = [f'{cost.path} ({cost.kind})' for cost in layers]
    for ax, (quantity, unit, value) in zip(axes, QUANTITIES, strict=True):
        in_words = EngFormatter(unit, places=1)
        values, whole = [value(cost) for cost in layers], value(net)
        ax.barh(range(len(names)), values, color=COLOURS[0], height=0.7)
        share = f', {100 * sum(values) / whole:.1f} %' if whole else ''
        ax.set_title(f'{quantity}\n{in_words(sum(values))} of {in_words(whole)}{share}')
        ax.set(yticks=range(len(names)), yticklabels=names, xlim=(0, None if any(values) else 1))
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=not unit))
        ax.xaxis.set_major_formatter(EngFormatter(unit))
    axes[0].invert_yaxis()
    return figure
