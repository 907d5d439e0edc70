"""Diagrams of the places where attention sits: docs/gallery/site_*.svg, and sites.svg with all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm_attn.figures import save
from timm_attn.figures.canvas import COLOURS, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ATTENTION, PLUS = 'attention', '+'
# Site -> title, and the boxes from left to right; where there is a sum, the first box's input goes around to it
SITES: dict[str, tuple[str, Sequence[str]]] = {
    'conv': (
        'conv (SimAM): after the spatial convolution, before its norm',
        ('1x1 conv', 'norm, ReLU', '3x3 conv', ATTENTION, 'norm, ReLU', '1x1 conv', 'norm', PLUS, 'ReLU'),
    ),
    'block': (
        'block (SE, CBAM, ECA, GC, SRM, BAM-C): at the end of the residual branch, before the sum',
        ('1x1 conv', 'norm, ReLU', '3x3 conv', 'norm, ReLU', '1x1 conv', 'norm', ATTENTION, PLUS, 'ReLU'),
    ),
    'stage': (
        'stage (BAM): between the stages of a net',
        ('stem', 'layer1', ATTENTION, 'layer2', ATTENTION, 'layer3', ATTENTION, 'layer4', 'head'),
    ),
}
WIDTH, HEIGHT, GAP = 1.0, 0.62, 0.24  # of a box, and between two
RADIUS = 0.26  # of the sum


@styled
def site_figure(sites: Sequence[str]) -> 'Figure':
    """One row of boxes for each site."""
    figure, axes = new_axes(len(sites), 1, (9.2, 0.1 + 1.45 * len(sites)), '')
    for ax, site in zip(axes[:, 0], sites, strict=True):
        _draw_row(ax, *SITES[site])
    return figure


def _draw_row(ax: 'Axes', title: str, boxes: Sequence[str]) -> None:
    step, middle = WIDTH + GAP, HEIGHT / 2
    arrow: dict[str, Any] = dict(arrowstyle='-|>', color='#444', shrinkA=0, shrinkB=0)
    edges = [-2 * GAP]  # where arrows begin and end, in turn
    for i, box in enumerate(boxes):
        half = RADIUS if box == PLUS else WIDTH / 2
        edges += [i * step + WIDTH / 2 - half, i * step + WIDTH / 2 + half]
        _draw_box(ax, i * step, box)
    edges.append(len(boxes) * step)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        ax.annotate('', (end, middle), (start, middle), arrowprops=arrow)
    if PLUS in boxes:
        end_x, above = boxes.index(PLUS) * step + WIDTH / 2, HEIGHT + 0.28
        ax.plot([-GAP, -GAP, end_x, end_x], [middle, above, above, middle + RADIUS], color='#444', linewidth=1.1)
        ax.text(-GAP + 0.1, above + 0.05, 'shortcut', fontsize=8, color='#444', va='bottom')
    ax.set_title(title, loc='left', pad=2 if PLUS in boxes else -14)
    ax.set(xlim=(-0.5, len(boxes) * step), ylim=(-0.1, HEIGHT + 0.55), aspect='equal')
    ax.set_axis_off()


def _draw_box(ax: 'Axes', x: float, box: str) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    look: dict[str, Any] = dict(edgecolor='#444', facecolor='#eef2f6', linewidth=1)
    colour = 'black'
    if box == ATTENTION:
        look.update(edgecolor=COLOURS[1], facecolor=COLOURS[1])
        colour = 'white'
    if box == PLUS:
        ax.add_patch(Circle((x + WIDTH / 2, HEIGHT / 2), RADIUS, **look))
    else:
        ax.add_patch(FancyBboxPatch((x, 0), WIDTH, HEIGHT, boxstyle='round,pad=0,rounding_size=0.08', **look))
    ax.text(x + WIDTH / 2, HEIGHT / 2, box, ha='center', va='center', color=colour, fontsize=8.5)


def draw_sites(folder: Path) -> list[Path]:
    """Writes the diagram of each site, and one of all."""
    figures = {f'site_{site}': [site] for site in SITES} | {'sites': list(SITES)}
    return [save(site_figure(sites), folder / f'{name}.svg') for name, sites in figures.items()]
