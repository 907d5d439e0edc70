"""Nets side by side, stage by stage, on one picture (BAM Figures 5 and 6)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from timm_attn.analysis import StageView, channel_profile, spatial_map
from timm_attn.figures.canvas import SCALE, Array, new_axes, show_curve, show_map, styled, value_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The rows of a net with attention: title, and the field of StageView; 'channels' is the factor's mean over positions
ATTENTION_ROWS = (
    ('before attention', 'before'),
    ('attention', 'factor'),
    ('after attention', 'after'),
    ('attention of channels', 'channels'),
)


@styled
def comparison_sheet(title: str, image: Array, nets: Mapping[str, tuple[str, Sequence[StageView]]]) -> 'Figure':
    """The maps of every stage of some nets, averaged over the channels; the first image of each view is shown.

    Args:
        image: the picture, (H, W, 3) in 0..1.
        nets: the prediction and the stages of each net, by its name.
    """
    rows = [(net, 'output of the stage', views, 'features') for net, (_, views) in nets.items()]
    rows += [(net, what, views, field) for net, (_, views) in nets.items() for what, field in ATTENTION_ROWS]
    rows = [row for row in rows if any(_shown(view, row[3]) is not None for view in row[2])]
    columns = 1 + max(len(views) for _, views in nets.values())
    size = (1.75 * columns, 0.5 + 1.75 * (1 + len(rows)))
    figure, axes = new_axes(1 + len(rows), columns, size, f'{title}; {SCALE}, means of channels')
    for ax in axes.flat:
        ax.set_axis_off()
    _show_picture(axes[0], image, {net: prediction for net, (prediction, _) in nets.items()})
    for line, (net, what, views, field) in zip(axes[1:], rows, strict=True):
        line[0].text(0.5, 0.5, f'{net}\n\n{what}', ha='center', va='center', fontsize=8.5)
        for ax, view in zip(line[1:], views, strict=False):
            _show(ax, view, field)
    return figure


def _show_picture(line: 'Sequence[Axes]', image: Array, predictions: Mapping[str, str]) -> None:
    line[0].imshow(image, interpolation='nearest')
    for i, (net, prediction) in enumerate(predictions.items()):
        text = line[1].text(0, 0.7 - 0.3 * i, f'{net}: {prediction}', fontsize=10, transform=line[1].transAxes)
        text.set_in_layout(False)  # it runs over the empty cells beside it


def _show(ax: 'Axes', view: StageView, field: str) -> None:
    values = _shown(view, field)
    if values is None:
        return
    if field == 'channels':
        ax.set_axis_on()
        show_curve(ax, values, '')
    else:
        path = view.path if field == 'features' else str(view.layer)
        show_map(ax, values, f'{_broken(path)}\n{value_range(values)}')


def _broken(path: str) -> str:
    """A long path in two lines."""
    owner, _, attribute = path.rpartition('.')
    return f'{owner}.\n{attribute}' if len(path) > 12 and owner else path


def _shown(view: StageView, field: str) -> Array | None:
    """A map (H, W) or a curve (C,); None where the stage has no attention, or attention that is constant there."""
    maps = view.factor if field == 'channels' else getattr(view, field)
    if maps is None or (field != 'channels' and maps.shape[2:].numel() == 1):
        return None
    mean: Array = (channel_profile(maps) if field == 'channels' else spatial_map(maps))[0].cpu().numpy()
    return mean
