"""The sheet of one picture: a layer's attention and Grad-CAM for a class (SimAM Figure 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timm_attn.figures.canvas import COLOURS, SCALE, Array, new_axes, show_curve, show_map, styled, value_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation:
    """The content of a sheet.

    Args:
        title: the net and the picture.
        image: what the net saw, (H, W, 3) in 0..1.
        target: the class of the Grad-CAM maps.
        layer: the layer's kind and path.
        grad_cams: maps (H, W) by where they are taken: before the layer, after it, on its weights.
        attention: the mean over channels of the layer's attention, (H, W), where it varies over the positions.
        gates: the attention of every channel, (C,), where it does not.
        classes: the most probable ones, best first, as (label, probability).
    """

    title: str
    image: Array
    target: str
    layer: str
    grad_cams: Mapping[str, Array]
    attention: Array | None
    gates: Array | None
    classes: Sequence[tuple[str, float]]


@styled
def explanation_sheet(shown: Explanation) -> 'Figure':
    """The image, its Grad-CAM maps, the attention, and the most probable classes, side by side."""
    columns = 2 + len(shown.grad_cams) + (shown.attention is not None or shown.gates is not None)
    title = f'{shown.title}; {SCALE}\n{shown.layer}; Grad-CAM for {shown.target!r}'
    figure, ((image, *axes, bars),) = new_axes(1, columns, (2.05 * columns, 2.75), title)
    image.imshow(shown.image, interpolation='nearest')
    image.set_title('what the net saw')
    image.set_axis_off()
    for ax, (name, values) in zip(axes, shown.grad_cams.items(), strict=False):
        show_map(ax, values, name if values.any() else f'{name}\n(zero everywhere)', shown.image)
    if shown.attention is not None:
        show_map(axes[-1], shown.attention, f'attention, mean of channels\n{value_range(shown.attention)}')
    elif shown.gates is not None:
        show_curve(axes[-1], shown.gates, 'attention of channels')
    _show_classes(bars, shown.classes)
    return figure


def _show_classes(ax: 'Axes', classes: Sequence[tuple[str, float]]) -> None:
    """Bars with the labels inside the axes, so that long ones have room."""
    shares = [100 * p for _, p in classes]
    ax.barh(range(len(classes)), shares, height=0.35, color=COLOURS[0])
    for i, ((label, _), share) in enumerate(zip(classes, shares, strict=True)):
        ax.text(1.5, i - 0.24, f'{label}, {share:.1f} %', fontsize=8.5, va='bottom')
    ax.set(xlim=(0, 100), ylim=(len(classes) - 0.5, -0.85), yticks=[], xlabel='probability in %')
    ax.set_title(f'top {len(classes)}')
