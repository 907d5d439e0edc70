"""Image files, decoded or refused in one sentence."""

from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError


def read_image(path: Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        ValueError: the file is missing or cannot be decoded.
    """
    try:
        return decode_image(path, path)
    except FileNotFoundError:
        raise ValueError(f'There is no image {path}.') from None


def decode_image(file: Path | IO[bytes], name: object) -> Image.Image:
    """A file as an RGB image.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be decoded; the message has its name.
    """
    try:
        return Image.open(file).convert('RGB')
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f'{name} cannot be read as an image: its format is unknown, or it is damaged.') from error
    except (Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f'{name} cannot be read as an image: {error}.') from error
