"""Pictures with boxes and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timm_attn.figures.canvas import COLOURS, Array, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 2.6  # inches of a panel's longer side in a grid
_ALONE = 8.0  # and of one panel alone


@dataclass(frozen=True)
class Detections:
    """What is on a picture.

    Args:
        image: (H, W, 3) in 0..1.
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        names: N texts.
        classes: N numbers; the same class has the same colour.
        masks: (N, H, W), or none.
        title: above the picture.
    """

    image: Array
    boxes: Array
    names: Sequence[str]
    classes: Sequence[int]
    masks: npt.NDArray[np.bool_] | None = None
    title: str = ''


@styled
def detections_figure(panels: Sequence[Detections], title: str, columns: int = 4) -> 'Figure':
    """Pictures in rows, each with its boxes, their names, and its masks as tinted areas."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    height, width = panels[0].image.shape[:2]
    side = (_ALONE if len(panels) == 1 else _SIDE) / max(height, width)
    size = (max(3.0, columns * (width * side + 0.1)), 0.5 + rows * (height * side + 0.25))
    figure, axes = new_axes(rows, columns, size, title)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        _show(ax, panel, 9 if len(panels) == 1 else 7)
    return figure


def _show(ax: 'Axes', panel: Detections, letters: float) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    picture: Any = panel.image.copy()
    colours = [COLOURS[label % len(COLOURS)] for label in panel.classes]
    if panel.masks is not None:
        for mask, colour in zip(panel.masks, colours, strict=True):
            picture[mask] = 0.5 * picture[mask] + 0.5 * np.array(to_rgb(colour))
    ax.imshow(picture, interpolation='nearest', vmin=0, vmax=1)
    height, width = picture.shape[:2]
    for (left, top, right, bottom), name, colour in zip(panel.boxes, panel.names, colours, strict=True):
        corner = (left - 0.5, top - 0.5)  # pixels are drawn around their centres
        ax.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.4))
        high = top > 0.12 * height  # else the name is written inside
        at_right = left + right > width  # there it ends where the box does, so that the picture's edge cuts nothing
        ax.text(
            right if at_right else left, top - 0.5, name, color='white', fontsize=letters, clip_on=True,
            ha='right' if at_right else 'left', va='bottom' if high else 'top',
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.8),
        )  # fmt: skip
    ax.set_title(panel.title)
