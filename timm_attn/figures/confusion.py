"""A confusion matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timm_attn.figures.canvas import HEAT, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERED = 30  # more classes than this are drawn without numbers and names
_CELL = 0.42  # inches
_LETTER = 0.075


@styled
def confusion_figure(counts: npt.NDArray[np.integer[Any]], classes: Sequence[str]) -> 'Figure':
    """The number of images of each true class (row) and predicted class (column); colour is the share of the row."""
    numbered = len(classes) <= _NUMBERED
    names = _LETTER * max(map(len, classes)) if numbered else 0.0
    side = (_CELL * len(classes) if numbered else 8.0) + names
    top1 = 100 * np.trace(counts) / max(int(counts.sum()), 1)
    figure, ((ax,),) = new_axes(
        1, 1, (side + 1.6, side + 1.0), f'Confusion of {len(classes)} classes, top-1 {top1:.2f} %'
    )
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = ax.imshow(shares, cmap=HEAT, vmin=0, vmax=100, interpolation='nearest')
    figure.colorbar(shown, ax=ax, label='share of the true class in %', shrink=0.8)
    ax.set(xlabel='predicted', ylabel='true')
    if not numbered:
        return figure
    ax.set_xticks(range(len(classes)), classes, rotation=90, parse_math=False)  # names may have dollar signs
    ax.set_yticks(range(len(classes)), classes, parse_math=False)
    for (row, column), count in np.ndenumerate(counts):
        ax.text(
            column, row, str(count), ha='center', va='center', color='black' if shares[row, column] > 60 else 'white'
        )
    return figure
