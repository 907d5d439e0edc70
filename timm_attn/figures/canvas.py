"""Shared by all figures: the check for matplotlib, colours, sizes, saving."""

import functools
import importlib.util
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from timm_attn.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec('P')
T = TypeVar('T')
Array = npt.NDArray[np.floating[Any]]
FORMATS = ('png', 'svg')
# Okabe and Ito's colours, which colour-blind readers tell apart, dark ones first; the dashes are for grey prints
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00')
DASHES: Sequence[Any] = ('solid', (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
HEAT = 'viridis'
DPI = 110
MAX_CHANNELS = 200
_STYLE: Any = {
    'font.size': 9,
    'axes.titlesize': 9,
    'axes.labelsize': 9,
    'xtick.labelsize': 8,
    'ytick.labelsize': 8,
    'legend.fontsize': 8.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'text.parse_math': False,  # names of classes and files may have a $
    'svg.hashsalt': 'timm_attn',  # the same figure gives the same file
}


def require_matplotlib() -> None:
    """Raises RuntimeError where figures cannot be drawn."""
    if importlib.util.find_spec('matplotlib') is None:
        raise RuntimeError("Figures need matplotlib: pip install 'timm-attn[plots]'.")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """A decorator: draws in the style of all our figures."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> T:
        require_matplotlib()
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return in_style


def new_axes(
    rows: int, columns: int, size: tuple[float, float], title: str, **options: Any
) -> 'tuple[Figure, npt.NDArray[Any]]':
    """A figure of that size in inches with a grid of axes, (rows, columns), and a title above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout='constrained')
    letters = int(size[0] / 0.092)  # of a line at this size
    lines = [line for part in title.split('\n') for line in textwrap.wrap(part, letters)]
    figure.suptitle('\n'.join(lines), fontsize=10.5, x=0.01, ha='left')
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def show_map(ax: 'Axes', values: Array, title: str, image: Array | None = None) -> None:
    """A map (H, W), over the grey image (H, W, 3) if there is one, and a colour bar with its ends."""
    if image is not None:
        ax.imshow(image.mean(axis=2), cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    shown = ax.imshow(values, cmap=HEAT, alpha=1.0 if image is None else 0.6, interpolation='nearest')
    ax.set_title(title)
    ax.set_axis_off()
    figure: Any = ax.figure
    bar = figure.colorbar(shown, ax=ax, orientation='horizontal', shrink=0.62, aspect=16, pad=0.03)
    ends = sorted({float(values.min()), float(values.max())})
    bar.set_ticks(ends, labels=[f'{end:.3g}' for end in ends])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def is_constant(values: Array) -> bool:
    """Whether a map shows nothing, because all of its values are one up to rounding."""
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def show_gates(ax: 'Axes', values: Array, title: str) -> None:
    """The gates of the channels, (C,), from the highest to the lowest."""
    channels = sampled_channels(ax, len(values))
    ax.plot(np.sort(values)[::-1][channels], color=COLOURS[0], linewidth=1.6)
    ax.set_title(title)


def sampled_channels(ax: 'Axes', channels: int) -> npt.NDArray[np.int64]:
    """The places of sorted channels that are drawn, at most 200 at equal steps; labels the axis."""
    ax.set_xlabel(f'{channels} channels, sorted')
    ax.set_xticks([])
    ax.margins(x=0.02)
    return np.linspace(0, channels - 1, min(channels, MAX_CHANNELS)).round().astype(np.int64)


@styled
def save(figure: 'Figure', path: Path) -> Path:
    """Writes a PNG or SVG by the suffix; the file appears only when it is complete, in a folder that is made.

    Raises:
        ValueError: the suffix is of neither.
    """
    file_format = check_format(path)
    dates = {'Date': None} if file_format == 'svg' else {'Software': None}
    with replacing(path) as file:
        figure.savefig(file, format=file_format, dpi=DPI, metadata=dates)
    return path


def check_format(path: Path) -> str:
    """The format that a file's suffix names.

    Raises:
        ValueError: it is none of FORMATS.
    """
    file_format = path.suffix.lower().removeprefix('.')
    if file_format not in FORMATS:
        raise ValueError(f'A figure is a .png or .svg file, but got {str(path)!r}.')
    return file_format
