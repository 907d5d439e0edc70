"""`timm-attn train --confusion`: a run's confusion matrix as a picture."""

import csv
from pathlib import Path

import numpy as np

from timm_attn import figures


def draw(run: Path) -> Path:
    """Draws the confusion.csv of a run as confusion.png beside it.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    with (run / 'confusion.csv').open(newline='', encoding='utf-8', errors='replace') as f:
        (_, *classes), *rows = csv.reader(f)
    counts = np.array([[int(count) for count in row[1:]] for row in rows])  # [true, predicted]
    return figures.save(figures.confusion_figure(counts, classes), run / 'confusion.png')
