"""Image files, decoded or refused in one sentence, the same way for reports and training."""

import io
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from timm_attn.files import write_whole

# What is white in the modes of more than 8 bits; some versions of Pillow open 16-bit files as I.
_WHITE = {**dict.fromkeys(('I;16', 'I;16L', 'I;16B', 'I;16N', 'I'), 65535), 'F': 1}
# Formats that Pillow names but cannot decode alone: EPS needs Ghostscript, the others a program's own handler.
_NOT_ALONE = {'EPS', 'WMF', 'MPEG', 'BUFR', 'GRIB', 'HDF5'}


def suffixes() -> set[str]:
    """The suffixes of the files that Pillow decodes alone, in lower case, each with its dot."""
    formats = {*_formats(), 'MPO'}  # which is opened as JPEG
    return {suffix for suffix, name in Image.registered_extensions().items() if name in formats}


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in _NOT_ALONE]


def read_image(path: Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        ValueError: the file is missing or cannot be decoded.
    """
    if not path.is_file():  # a pipe would never end
        raise ValueError(f'There is no image {path}.')
    try:
        with path.open('rb') as file:
            return decode_image(file)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as an image: {error}.') from error


def decode_image(file: IO[bytes]) -> Image.Image:
    """An open file as RGB, upright as its EXIF orientation says, (W, H), 8 bits a channel.

    16 bits become 8 by the whole range 0..65535, floats by 0..1. Grey stays exact in a conversion to L.

    Raises:
        ValueError: it cannot be decoded, or its values are out of that range; the message says why, not which file.
    """
    try:
        image = Image.open(file, formats=_formats())
        most = Image.MAX_IMAGE_PIXELS  # up to twice as many Pillow only warns
        if most is not None and image.width * image.height > most:
            raise ValueError(f'it has {image.width} x {image.height} pixels, more than {most:,}')
        image.load()
        with suppress(Exception):  # the pixels are whole; a damaged EXIF block says no orientation
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode not in _WHITE:
            return image.convert('RGB')
    except UnidentifiedImageError as error:
        raise ValueError('its format is unknown, or it is damaged') from error
    except Exception as error:  # in a damaged file Pillow's readers raise nearly anything
        raise ValueError(str(error).rstrip('.') or type(error).__name__) from error
    return _in_8_bits(image).convert('RGB')


def _in_8_bits(image: Image.Image) -> Image.Image:
    values, white = np.asarray(image), _WHITE[image.mode]
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # NaN is neither
        raise ValueError(f'it has mode {image.mode} and values from {low:g} to {high:g}, valid are 0 to {white}')
    return Image.fromarray((values / (white / 255)).round().astype(np.uint8))


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Writes a picture (H, W, 3) of 0 ... 255 as PNG, whatever the name of the file ends with.

    Raises:
        RuntimeError: it cannot be written; an old one is still there.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format='PNG')
    write_whole(path, buffer.getbuffer())
