"""Channel-weight profiles (ECA-Net supplement, Figure B)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from timm_attn.analysis import ClassMeans
from timm_attn.figures.canvas import COLOURS, DASHES, new_axes, sampled_channels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


@styled
def profile_figure(nets: Mapping[str, Mapping[str, ClassMeans]], classes: Mapping[int, str]) -> 'Figure':
    """The mean attention of every channel: one curve per class, and the mean of all classes; one row of panels per net.

    Args:
        nets: for each net's name the profiles of its layers; the i-th layers of all nets stand in the i-th column.
        classes: the names of the classes with a curve of their own, by number, at most four.
    """
    depth = max(len(layers) for layers in nets.values())
    columns = min(COLUMNS, depth)
    lines = [
        (net, list(layers.items())[start : start + columns])
        for start in range(0, depth, columns)
        for net, layers in nets.items()
        if start < len(layers)
    ]
    size = (4.2 * columns, 0.9 + 1.75 * len(lines))
    figure, axes = new_axes(len(lines), columns, size, 'Attention of channels, mean over images')
    for (net, layers_of_line), line in zip(lines, axes, strict=True):
        for ax in line[len(layers_of_line) :]:
            ax.set_axis_off()
        for ax, (path, means) in zip(line, layers_of_line, strict=False):
            _draw(ax, means, classes)
            ax.set_title(f'{net}: {path}')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower left', ncols=len(labels), frameon=False)
    return figure


def _draw(ax: 'Axes', means: ClassMeans, classes: Mapping[int, str]) -> None:
    channels = sampled_channels(ax, means.sums.shape[1])
    values = means.means[:, channels]
    styles: Sequence[tuple[str, Any]] = list(zip(COLOURS, DASHES, strict=True))
    for (number, name), (colour, dashes) in zip(classes.items(), styles, strict=False):
        ax.plot(channels, values[number].numpy(), color=colour, linestyle=dashes, linewidth=1, label=name)
    everything = torch.nanmean(values, dim=0).numpy()
    ax.plot(
        channels, everything, color='black', linewidth=1.6, alpha=0.6, label=f'mean of {len(values)} classes', zorder=1
    )
