"""`timm-attn cost`: the cost of a net's attention layers."""

from collections.abc import Sequence
from pathlib import Path

import torch

from timm_attn import figures
from timm_attn.analysis import Cost, cost_report
from timm_attn.figures.canvas import check_format
from timm_attn.reports.net import Net
from timm_attn.reports.numbers import check_numbers, write_numbers


def cost(
    net: Net, out: Path, *, layers: Sequence[str] | None = None, batch_size: int = 1, numbers: str = 'csv'
) -> tuple[list[Cost], list[Path]]:
    """Measures the layers of a net at its own input size, draws the figure and writes the numbers.

    Args:
        out: the figure, .png or .svg; the numbers lie beside it.
        layers: their paths; by default the attention layers, in a net without them the stages.
        batch_size: images that pass at once.
        numbers: their format, 'csv' or 'json'.

    Raises:
        ValueError: there is no such layer or format, or batch_size is not positive.
        RuntimeError: matplotlib is missing.
    """
    figures.require_matplotlib()
    check_format(out)
    check_numbers(numbers)
    if batch_size < 1:
        raise ValueError(f'batch_size must be positive, but got {batch_size}.')
    size = net.data_config['input_size']
    costs = cost_report(net.model, torch.randn(batch_size, *size, device=net.device), layers)
    kinds = {c.kind for c in costs[:-1]}
    what = f'{len(costs) - 1} {kinds.pop() if len(kinds) == 1 else "named"} layers'
    title = f'{net.name}: what its {what} cost, {batch_size} x {"x".join(map(str, size))}, {net.device.type}'
    figure = figures.cost_figure(title, costs[:-1], costs[-1])
    return costs, [figures.save(figure, out), write_numbers(out, numbers, (c._asdict() for c in costs))]
