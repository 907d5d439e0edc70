"""Nets side by side, stage by stage, on one picture (BAM Figures 5 and 6)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from timm_attn.analysis import StageView, channel_profile, spatial_map
from timm_attn.figures.canvas import Array, new_axes, show_gates, show_map, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # panels, the picture among them
ROWS = {'features': 'output of\nthe stage', 'factor': 'its last\nattention'}  # fields of StageView that have a row
SEE = 'Bright is high, as a mean over channels: compare the nets stage by stage.'


class Answer(NamedTuple):
    """What a net says of the picture, and its stages, of which the first image is shown."""

    label: str
    probability: float
    views: Sequence[StageView]


@styled
def comparison_sheet(title: str, image: Array, true: str | None, nets: Mapping[str, Answer]) -> 'Figure':
    """The picture with the answers of some nets, and their last stages: outputs, and attention where there is any.

    Args:
        title: one sentence on what the sheet is.
        image: the picture, (H, W, 3) in 0..1.
        true: its class, where it is known.
    """
    rows = [
        (net, field) for net in nets for field in ROWS if any(_values(v, field) is not None for v in nets[net].views)
    ]
    stages = _stages(nets, rows)
    ratios = {'width_ratios': [0.75, *[1] * stages], 'height_ratios': [0.7, *[1] * len(rows)]}
    size = (1.2 + 1.9 * stages, 2.1 + 2.2 * len(rows))
    figure, axes = new_axes(1 + len(rows), 1 + stages, size, f'{title}\n{SEE}', gridspec_kw=ratios)
    for ax in axes.flat:
        ax.set_axis_off()
    _show_picture(axes[0], image, true, nets)
    for line, (net, field) in zip(axes[1:], rows, strict=True):
        line[0].text(0, 0.5, f'{net}\n\n{ROWS[field]}', va='center', fontsize=8.5)
        for ax, view in zip(line[1:], nets[net].views[-stages:], strict=False):
            _show(ax, view, field)
    return figure


def _stages(nets: Mapping[str, Answer], rows: Sequence[tuple[str, str]]) -> int:
    """How many of the last stages have room."""
    most = max(len(answer.views) for answer in nets.values())

    def panels(stages: int) -> int:
        return 1 + sum(_values(v, field) is not None for net, field in rows for v in nets[net].views[-stages:])

    return max((n for n in range(1, most + 1) if panels(n) <= MOST), default=1)


def _show_picture(line: 'Sequence[Axes]', image: Array, true: str | None, nets: Mapping[str, Answer]) -> None:
    line[0].imshow(image, interpolation='nearest')
    said = [f'true class: {true}'] if true else []
    said += [f'{net} says: {answer.label}, {100 * answer.probability:.0f} %' for net, answer in nets.items()]
    text = line[1].text(0, 0.5, '\n\n'.join(said), fontsize=10, va='center', transform=line[1].transAxes)
    text.set_in_layout(False)  # it runs over the empty cells beside it


def _show(ax: 'Axes', view: StageView, field: str) -> None:
    values = _values(view, field)
    if values is None:
        return
    title = _broken(view.path if field == 'features' else str(view.layer))
    if values.ndim == 1:
        ax.set_axis_on()
        show_gates(ax, values, title)
    else:
        show_map(ax, values, title)


def _broken(path: str) -> str:
    """A long path in two lines."""
    owner, _, attribute = path.rpartition('.')
    return f'{owner}.\n{attribute}' if len(path) > 20 and owner else path


def _values(view: StageView, field: str) -> Array | None:
    """A map (H, W), or the gates (C,) of attention that is constant over the positions; None without attention."""
    maps = getattr(view, field)
    if maps is None:
        return None
    varies = field == 'features' or maps.shape[2:].numel() > 1
    mean: Array = (spatial_map(maps) if varies else channel_profile(maps))[0].cpu().numpy()
    return mean
