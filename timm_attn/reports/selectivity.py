"""`timm-attn selectivity`: the class selectivity of feature maps, stage by stage."""

from collections.abc import Sequence
from pathlib import Path

from timm_attn import figures
from timm_attn.analysis import class_selectivity
from timm_attn.figures.canvas import check_format
from timm_attn.reports.dataset import Pictures, batches_of
from timm_attn.reports.net import Net
from timm_attn.reports.numbers import check_numbers, write_numbers


def selectivity(nets: Sequence[Net], data: Path, out: Path, *, numbers: str = 'csv') -> list[Path]:
    """Draws the distribution of class selectivity at every stage of one net or several (BAM Figure 4) and writes the
    index of every feature map.

    Args:
        data: a folder of class folders, or a tar of them.
        out: the figure, .png or .svg; the numbers lie beside it.
        numbers: their format, 'csv' or 'json'.

    Raises:
        ValueError: there are no images or one cannot be read, there are fewer than two classes, a net names no stages,
            or there is no such format.
        RuntimeError: matplotlib is missing.
    """
    figures.require_matplotlib()
    check_format(out)
    check_numbers(numbers)
    pictures = Pictures(data)
    if len(pictures.classes) < 2:
        raise ValueError(f'Selectivity compares classes, but {data} has only {pictures.classes[0]!r}.')
    found = {net.name: class_selectivity(net.model, batches_of(pictures, net), len(pictures.classes)) for net in nets}
    figure = figures.selectivity_figure(found)
    rows = (
        {'model': name, 'stage': stage, 'channel': channel, 'index': index}
        for name, stages in found.items()
        for stage, indices in stages.items()
        for channel, index in enumerate(indices.tolist())
    )
    return [figures.save(figure, out), write_numbers(out, numbers, rows)]
