"""The sheet of one picture: a layer's attention and Grad-CAM for a class (SimAM Figure 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timm_attn.figures.canvas import COLOURS, Array, is_constant, new_axes, show_gates, show_map, styled

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
        grad_cams: maps (H, W) by where they are taken, such as 'before SimAM'.
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
    """The image, the attention and the most probable classes, and below them the Grad-CAM maps.

    Maps without a difference between positions are left out, and named in the title.
    """
    cams = {name: values for name, values in shown.grad_cams.items() if not is_constant(values)}
    lines = [f'{shown.title}: {shown.layer}', 'every map has its own scale']
    if len(cams) < len(shown.grad_cams):
        lines.append(
            f'Grad-CAM is the same everywhere, and left out: {", ".join(shown.grad_cams.keys() - cams.keys())}'
        )
    has_attention = shown.attention is not None or shown.gates is not None
    upper = 2 + has_attention
    columns = max(upper, len(cams))
    rows = 1 + bool(cams)
    figure, axes = new_axes(rows, columns, (3.05 * columns, 0.5 + 3.3 * rows), '; '.join(lines))
    for ax in [*axes[0, upper:], *(axes[1, len(cams) :] if cams else ())]:
        ax.set_axis_off()
    axes[0, 0].imshow(shown.image, interpolation='nearest')
    axes[0, 0].set_title('what the net saw')
    axes[0, 0].set_axis_off()
    if shown.attention is not None:
        show_map(axes[0, 1], shown.attention, 'attention, mean of channels')
    elif shown.gates is not None:
        show_gates(axes[0, 1], shown.gates, 'attention of every channel')
    _show_classes(axes[0, upper - 1], shown.classes)
    for ax, (name, values) in zip(axes[-1], cams.items(), strict=False):
        show_map(ax, values, f'Grad-CAM for {shown.target!r}\n{name}', shown.image)
    return figure


def _show_classes(ax: 'Axes', classes: Sequence[tuple[str, float]]) -> None:
    """Bars with the labels inside the axes, so that long ones have room."""
    shares = [100 * p for _, p in classes]
    ax.barh(range(len(classes)), shares, height=0.35, color=COLOURS[0])
    for i, ((label, _), share) in enumerate(zip(classes, shares, strict=True)):
        ax.text(1.5, i - 0.24, f'{label}, {share:.1f} %', fontsize=8.5, va='bottom')
    ax.set(xlim=(0, 100), ylim=(len(classes) - 0.5, -0.85), yticks=[])
    ax.set_title(f'top {len(classes)}, probability in %')
