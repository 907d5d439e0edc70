"""A confusion matrix as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from timm_attn.figures.contact_sheet import heat

_NUMBERED = 30  # more classes than this are drawn without numbers and names


def confusion_picture(counts: npt.NDArray[np.integer[Any]], classes: Sequence[str]) -> Image.Image:
    """Rows are the true classes, columns the predicted ones; colour is the share of the row, numbers are images."""
    n = len(classes)
    numbered = n <= _NUMBERED
    cell, font = 36 if numbered else max(1, 900 // n), ImageFont.load_default(13)
    margin = 20 + (max(int(font.getlength(name)) for name in classes) if numbered else 0)
    title = f'rows: true, columns: predicted; top-1 {100 * np.trace(counts) / max(int(counts.sum()), 1):.2f} %'
    width = max(margin + n * cell + 20, int(font.getlength(title)) + 20)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    sheet = Image.new('RGB', (width, 44 + n * cell + margin), 'white')
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 12), title, 'black', font)
    sheet.paste(heat(shares).resize((n * cell, n * cell), Image.Resampling.NEAREST), (margin, 40))
    if numbered:
        for i, name in enumerate(classes):
            draw.text((margin - 8, 40 + (i + 0.5) * cell), name, 'black', font, anchor='rm')
            _upright(sheet, name, (margin + i * cell, 44 + n * cell), cell, font)
            for j in range(n):
                ink = 'black' if shares[i, j] > 0.6 else 'white'
                draw.text((margin + (j + 0.5) * cell, 40 + (i + 0.5) * cell), str(counts[i, j]), ink, font, anchor='mm')
    return sheet


def _upright(sheet: Image.Image, text: str, place: tuple[int, int], width: int, font: Any) -> None:
    """Text that runs from top to bottom, in the middle of a column."""
    label = Image.new('RGB', (int(font.getlength(text)) + 4, 18), 'white')
    ImageDraw.Draw(label).text((2, 1), text, 'black', font)
    sheet.paste(label.rotate(-90, expand=True), (place[0] + (width - 18) // 2, place[1]))
