"""`timm-attn sweep`: the accuracy over the values of an attention option as a picture."""

import json
from pathlib import Path

from timm_attn import figures


def draw(output: Path) -> Path:
    """Draws the sweep.json of a sweep as sweep.png beside it.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    content = json.loads((output / 'sweep.json').read_text())
    rows = content['rows']
    values, top1, means, deviations = ([row[key] for row in rows] for key in ('value', 'top1', 'mean', 'sd'))
    title = f'{content["model"]}, {rows[0]["n"] + rows[0]["diverged"]} runs per value'
    figure = figures.sweep_figure(title, content['attn_kwarg'], values, top1, means, deviations)
    return figures.save(figure, output / 'sweep.png')
