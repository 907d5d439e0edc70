"""Contact sheets of images and their attention, drawn with Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

# viridis at five equal steps: its lightness grows evenly, also for colour-blind readers and in print
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=float)
_GREY, _WRONG = (90, 90, 90), (213, 94, 0)
_SIDE, _GAP, _TEXT, _TITLE, _COLUMNS = 150, 16, 48, 44, 4


@dataclass(frozen=True)
class Tile:
    """An image, a map over it, and two lines below; the first is marked where the prediction is wrong."""

    image: Image.Image
    attention: npt.NDArray[np.floating[Any]]
    first_line: str
    second_line: str
    wrong: bool = False


def heat(values: npt.NDArray[np.floating[Any]]) -> Image.Image:
    """A map (H, W) in viridis from its lowest to its highest value."""
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    steps = np.linspace(0, 1, len(_VIRIDIS))
    rgb = np.stack([np.interp(scaled, steps, _VIRIDIS[:, c]) for c in range(3)], axis=-1)
    return Image.fromarray(rgb.round().astype(np.uint8))


def contact_sheet(tiles: Sequence[Tile], title: str) -> Image.Image:
    """The tiles in rows of four, each the image beside its map, dark on white, with a colour scale."""
    rows = -(-len(tiles) // _COLUMNS)
    width, height = 2 * _SIDE + 4, _SIDE + _TEXT
    size = (_COLUMNS * (width + _GAP) + _GAP, _TITLE + rows * (height + _GAP))
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), title, 'black', _font(18))
    _draw_scale(sheet, draw)
    for i, tile in enumerate(tiles):
        x = _GAP + i % _COLUMNS * (width + _GAP)
        y = _TITLE + i // _COLUMNS * (height + _GAP)
        sheet.paste(tile.image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (x, y))
        sheet.paste(heat(tile.attention).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (x + _SIDE + 4, y))
        draw.text((x, y + _SIDE + 4), tile.first_line, _WRONG if tile.wrong else 'black', _font(17))
        ends = f'{tile.attention.min():.2f} to {tile.attention.max():.2f}'
        draw.text((x + _SIDE + 4, y + _SIDE + 6), ends, _GREY, _font(15))
        draw.text((x, y + _SIDE + 25), tile.second_line, _GREY, _font(15))
    return sheet


def _draw_scale(sheet: Image.Image, draw: ImageDraw.ImageDraw) -> None:
    bar = heat(np.linspace(0, 1, 120)[None]).resize((120, 14))
    x = sheet.width - _GAP - bar.width - 36
    draw.text((x - 34, 12), 'low', 'black', _font(15))
    sheet.paste(bar, (x, 15))
    draw.text((x + bar.width + 6, 12), 'high', 'black', _font(15))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
