"""The most probable classes of image files."""

from collections.abc import Sequence
from pathlib import Path

from timm_attn.images import read_image
from timm_attn.reports.net import Net


def predict(net: Net, paths: Sequence[Path], top: int = 5) -> list[tuple[Path, list[tuple[str, float]]]]:
    """The top classes of each image as (label, probability), best first.

    Raises:
        ValueError: a file is not a readable image (then nothing is predicted).
    """
    inputs = list(net.prepared(read_image(path) for path in paths))  # of photographs, much smaller than these
    return [(path, net.ranked(net.probabilities(x), top)) for path, x in zip(paths, inputs, strict=True)]
