"""Channel-weight profiles (ECA-Net supplement, Figure B)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from timm_attn.analysis import ClassMeans
from timm_attn.figures.canvas import COLOURS, new_axes, sampled_channels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
MARKERS = 'osD^v'
SEE = (
    'Attention of the channels, mean over images: a dot far from the line is a channel whose gate depends on the class.'
)


@styled
def profile_figure(nets: Mapping[str, Mapping[str, ClassMeans]], classes: Mapping[int, str]) -> 'Figure':
    """The mean attention of every channel, sorted: a line for all classes, dots for some; one row of panels per net.

    Args:
        nets: for each net's name the profiles of its layers; the i-th layers of all nets stand in the i-th column.
        classes: the names of the classes with dots of their own, by number, at most four.
    """
    depth = max(len(layers) for layers in nets.values())
    columns = min(COLUMNS, depth)
    lines = [
        (net, list(layers.items())[start : start + columns])
        for start in range(0, depth, columns)
        for net, layers in nets.items()
        if start < len(layers)
    ]
    size = (3.6 * columns, 1.0 + 1.9 * len(lines))
    figure, axes = new_axes(len(lines), columns, size, SEE, sharey=True)
    for (net, layers_of_line), line in zip(lines, axes, strict=True):
        for ax in line[len(layers_of_line) :]:
            ax.set_axis_off()
        for ax, (path, means) in zip(line, layers_of_line, strict=False):
            _draw(ax, means, classes)
            ax.set_title(path if len(nets) == 1 else f'{net}\n{path}')
        line[0].set_ylabel('gate')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = next(iter(nets)) if len(nets) == 1 else None
    figure.legend(
        handles, labels, loc='outside lower left', ncols=len(labels), frameon=False, title=title, alignment='left'
    )
    return figure


def _draw(ax: 'Axes', means: ClassMeans, classes: Mapping[int, str]) -> None:
    everything = torch.nanmean(means.means, dim=0)
    order = everything.argsort(descending=True)[sampled_channels(ax, len(everything))]
    places = np.arange(len(order))
    looks: Sequence[tuple[str, str]] = list(zip(COLOURS, MARKERS, strict=True))
    for (number, name), (colour, marker) in zip(classes.items(), looks, strict=False):
        of_class = means.means[number][order].numpy()
        ax.plot(places, of_class, marker, color=colour, markersize=3, markeredgewidth=0, alpha=0.8, label=name)
    label = f'mean of {len(means.means)} classes'
    ax.plot(places, everything[order].numpy(), color='black', linewidth=1.4, label=label, zorder=1)
