"""`timm-attn profile`: the mean attention of every channel for the classes of a dataset."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from timm_attn import figures
from timm_attn.analysis import ClassMeans, channel_profiles
from timm_attn.attention import attention_layers
from timm_attn.figures.canvas import check_format
from timm_attn.reports.dataset import Pictures, batches_of
from timm_attn.reports.net import Net
from timm_attn.reports.numbers import Row, check_numbers, write_numbers

CURVES = 4  # classes with a curve of their own, as in the paper


def profile(
    nets: Sequence[Net], data: Path, out: Path, *, classes: Sequence[str] = (), numbers: str = 'csv'
) -> list[Path]:
    """Draws the channel-weight profiles of one net or several (ECA-Net supplement, Figure B) and writes the numbers.

    Args:
        data: a folder of class folders, or a tar of them.
        out: the figure, .png or .svg; the numbers lie beside it.
        classes: names of class folders with a curve of their own, at most four; by default the first four.
        numbers: their format, 'csv' or 'json'.

    Raises:
        ValueError: a net has no attention layers, there are no images or one cannot be read, there is no such class or
            format.
        RuntimeError: matplotlib is missing.
    """
    figures.require_matplotlib()
    check_format(out)
    check_numbers(numbers)
    for net in nets:
        if not attention_layers(net.model):
            raise ValueError(f'{net.name} has no attention layers.')
    pictures = Pictures(data)
    curves = _chosen(pictures.classes, classes)
    profiles = {net.name: channel_profiles(net.model, batches_of(pictures, net), len(pictures.classes)) for net in nets}
    figure = figures.profile_figure(profiles, curves)
    rows = (
        row
        for name, layers in profiles.items()
        for path, means in layers.items()
        for row in _rows(name, path, means, curves)
    )
    return [figures.save(figure, out), write_numbers(out, numbers, rows)]


def _chosen(known: Sequence[str], names: Sequence[str]) -> dict[int, str]:
    for name in names:
        if name not in known:
            raise ValueError(f'There is no class {name!r}: choose from {", ".join(known)}.')
    if len(names) > CURVES:
        raise ValueError(f'At most {CURVES} classes have a curve of their own, but got {len(names)}.')
    return {known.index(name): name for name in (names or known[:CURVES])}


def _rows(net: str, path: str, means: ClassMeans, classes: dict[int, str]) -> Iterator[Row]:
    values = means.means
    everything = torch.nanmean(values, dim=0).tolist()
    curves = {name: values[number].tolist() for number, name in classes.items()}
    for channel, mean in enumerate(everything):
        of_classes = {name: curve[channel] for name, curve in curves.items()}
        yield {'model': net, 'layer': path, 'channel': channel, 'mean of all classes': mean, **of_classes}
