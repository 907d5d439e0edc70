"""Distributions of class selectivity, stage by stage (BAM Figure 4)."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from timm_attn.figures.canvas import COLOURS, DASHES, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 20
TITLE = 'Class selectivity of feature maps: 0 answers all classes alike, 1 a single class'


@styled
def selectivity_figure(nets: Mapping[str, Mapping[str, Tensor]]) -> 'Figure':
    """One panel per stage: histograms of the feature maps' selectivity index, the nets overlaid.

    Args:
        nets: for each net's name the index of every feature map, (C,), by stage; the i-th stages share the i-th panel.
    """
    stages = max(len(of_net) for of_net in nets.values())
    figure, (axes,) = new_axes(1, stages, (0.6 + 2.6 * stages, 3.2), TITLE, sharey=True)
    edges = np.linspace(0, 1, BINS + 1)
    for (net, of_net), colour, dashes in zip(nets.items(), COLOURS, DASHES, strict=False):
        for ax, index in zip(axes, of_net.values(), strict=False):
            share = 100 * np.histogram(index.numpy(), edges)[0] / len(index)
            ax.stairs(share, edges, fill=True, color=colour, alpha=0.2)
            ax.stairs(share, edges, color=colour, linestyle=dashes, linewidth=1.6, label=net)
    for ax, of_stage in zip(axes, zip_longest(*(of_net.items() for of_net in nets.values())), strict=True):
        there = [stage for stage in of_stage if stage is not None]
        paths = ', '.join(dict.fromkeys(path for path, _ in there))
        maps = ' and '.join(dict.fromkeys(str(len(index)) for _, index in there))
        ax.set_title(f'{paths}, {maps} maps\nmean {" and ".join(f"{index.mean():.2f}" for _, index in there)}')
        ax.set(xlim=(0, 1), xlabel='class selectivity index')
    axes[0].set_ylabel('feature maps in %')
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower left', ncols=len(labels), frameon=False)
    return figure
