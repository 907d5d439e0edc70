"""The layers' share of a net's costs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from timm_attn.analysis import Cost
from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The quantities, their units, and their values for a layer
QUANTITIES: Sequence[tuple[str, str, Callable[[Cost], float]]] = (
    ('parameters', '', lambda cost: cost.params),
    ('multiply-accumulates', '', lambda cost: cost.macs),
    ('memory traffic', 'B', lambda cost: cost.moved_bytes),
    ('kept for the backward pass', 'B', lambda cost: cost.saved_bytes),
    ('time', 's', lambda cost: cost.milliseconds / 1000),
)
TINTS = (1.0, 0.65)  # of neighbouring layers


@styled
def cost_figure(title: str, layers: Sequence[Cost], net: Cost) -> 'Figure':
    """One bar per quantity: the layers' share of the whole net in percent, one segment per layer from the left."""
    from matplotlib.ticker import EngFormatter

    figure, ((ax,),) = new_axes(1, 1, (9.2, 3.4), title)
    highest = 0.0
    for row, (_, unit, value) in enumerate(QUANTITIES):
        in_words, whole, left = EngFormatter(unit, places=1), value(net), 0.0
        for i, layer in enumerate(layers):
            width = 100 * value(layer) / whole if whole else 0.0
            ax.barh(row, width, left=left, height=0.62, color=COLOURS[0], alpha=TINTS[i % 2], edgecolor='white')
            left += width
        of = f'{in_words(sum(map(value, layers)))} of {in_words(whole)}'
        ax.text(left, row, f'  {left:.1f} %: {of}', va='center', fontsize=9)
        highest = max(highest, left)
    ax.set(yticks=range(len(QUANTITIES)), yticklabels=[name for name, *_ in QUANTITIES])
    ax.set(xlim=(0, 1.4 * highest or 1), xlabel='share of the whole net, one segment per layer')
    ax.set_xticks([tick for tick in ax.get_xticks() if tick <= highest or not tick])
    ax.xaxis.set_major_formatter('{x:g} %')
    ax.invert_yaxis()
    return figure
