"""Boxes and masks are drawn where they are."""

from pathlib import Path

import numpy as np
import pytest

from timm_attn.figures.canvas import save
from timm_attn.figures.detections import Detections, detections_figure
from timm_attn.images import read_image


def panel(masks: bool = False) -> Detections:
    mask = np.zeros((2, 40, 50), dtype=bool)
    mask[0, 10:20, 10:30] = True
    return Detections(
        image=np.full((40, 50, 3), 0.5, dtype=np.float32), boxes=np.array([[10.0, 10, 30, 20], [5, 25, 45, 39]]),
        names=['bag 90 %', 'coat $ 60 %'], classes=[0, 1], masks=mask if masks else None, title='a scene',
    )  # fmt: skip


def test_boxes_are_outlines_in_pixels() -> None:
    figure = detections_figure([panel()], 'two things')
    (ax,) = figure.axes
    assert [patch.get_bbox().extents.tolist() for patch in ax.patches] == [
        [9.5, 9.5, 29.5, 19.5], [4.5, 24.5, 44.5, 38.5],
    ]  # fmt: skip
    assert [text.get_text() for text in ax.texts] == ['bag 90 %', 'coat $ 60 %']
    assert not any(patch.get_fill() for patch in ax.patches)
    assert ax.patches[0].get_edgecolor() != ax.patches[1].get_edgecolor()


def test_masks_are_tinted() -> None:
    image = detections_figure([panel(masks=True)], '').axes[0].images[0].get_array()
    changed = (np.asarray(image) != 0.5).any(axis=2)
    assert changed[10:20, 10:30].all() and changed.sum() == 200


@pytest.mark.parametrize('count', [1, 4, 5])
def test_grids(count: int, tmp_path: Path) -> None:
    figure = detections_figure([panel()] * count, 'scenes', columns=4)
    assert sum(len(ax.patches) > 0 for ax in figure.axes) == count
    assert read_image(save(figure, tmp_path / 'grid.png')).width > 200
