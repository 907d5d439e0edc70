"""Folders of pictures for super-resolution: a picture, and the same four times as small by MATLAB's bicubic."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from timm_attn.downstream.data.samples import Sample, digest
from timm_attn.downstream.resize import imresize_uint8
from timm_attn.downstream.srresnet import SCALE
from timm_attn.images import read_image, suffixes

LEAST = 96  # pixels of a side
MARGIN = 2 * SCALE  # pixels that the bicubic kernel, widened to reduce, reaches to each side


class Pictures:
    """Small and large RGB pictures of 0 ... 1, ([3, h, w], [3, 4h, 4w]): whole ones, in the order of their names.

    Rows and columns beyond a multiple of 4 are cut off at the bottom and on the right, as is usual with Set14.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no picture, or one with a side below 96 pixels.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, root: Path, split: str) -> None:
        self.folder = root / split
        if not self.folder.is_dir():
            raise FileNotFoundError(f'There is no folder {self.folder} of pictures.')
        self.files = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in suffixes())
        if not self.files:
            raise ValueError(f'The folder {self.folder} has no pictures.')
        for file in self.files:
            self._check(file, *_size(file))

    def _check(self, file: Path, width: int, height: int) -> None:
        if min(width, height) < LEAST:
            raise ValueError(f'{file} has {width} x {height} pixels, but each side needs at least {LEAST}.')

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        picture = np.asarray(read_image(self.files[index]))
        height, width = (size // SCALE * SCALE for size in picture.shape[:2])
        return pair(picture[:height, :width])

    def name(self, index: int) -> str:
        """The file of a picture."""
        return str(self.files[index])

    def fingerprint(self) -> dict[str, Any]:
        """The number of samples, and the SHA-256 of the files' names and sizes."""
        parts = [(path.name, path.stat().st_size) for path in self.files]
        return dict(images=len(self), sha256=digest([len(self), *parts]))


class Patches(Pictures):
    """`count` square patches, each of `side` pixels, from random places of the pictures in turn, turned and flipped.

    The pictures may have any size from 96 pixels on.

    Raises:
        ValueError: as Pictures, or the side is not divisible by 4 or larger than a picture.
    """

    def __init__(self, root: Path, split: str, count: int | None, side: int) -> None:
        if side < SCALE or side % SCALE:
            raise ValueError(f'The side of a patch must be a multiple of {SCALE}, but is {side}.')
        self.side = side
        super().__init__(root, split)
        self.count = count or len(self.files)

    def _check(self, file: Path, width: int, height: int) -> None:
        if min(width, height) < max(LEAST, self.side):
            least = max(LEAST, self.side)
            raise ValueError(f'{file} has {width} x {height} pixels, but each side needs at least {least}.')

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        file = self.files[index % len(self.files)]
        picture = _kept(file, file.stat().st_mtime_ns)
        y, x = (int(torch.randint(size - self.side + 1, ())) for size in picture.shape[:2])
        small, large = pair_at(picture, y, x, self.side)
        turns = int(torch.randint(8, ()))
        return as_tensor(_turned(small, turns)), as_tensor(_turned(large, turns))

    def name(self, index: int) -> str:
        return str(self.files[index % len(self.files)])


def pair(picture: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """The reduced picture and the picture, (H, W, 3) of uint8 -> [3, H / 4, W / 4] and [3, H, W] of 0 ... 1."""
    small = imresize_uint8(picture, picture.shape[0] // SCALE, picture.shape[1] // SCALE)
    return as_tensor(small), as_tensor(picture)


def pair_at(picture: Any, y: int, x: int, side: int) -> tuple[Any, Any]:
    """A square of a picture, reduced and as it is; reduced with what is around it, as far as the kernel reaches."""
    rows, columns = (_around(start, side, size) for start, size in zip((y, x), picture.shape[:2], strict=True))
    around = picture[rows, columns]
    small = imresize_uint8(around, around.shape[0] // SCALE, around.shape[1] // SCALE)
    top, left = (start - part.start for start, part in ((y, rows), (x, columns)))
    cut = slice(top // SCALE, (top + side) // SCALE), slice(left // SCALE, (left + side) // SCALE)
    return small[cut], picture[y : y + side, x : x + side]


def _around(start: int, side: int, size: int) -> slice:
    """The part of a row from up to MARGIN pixels before to as many behind, in steps of SCALE."""
    before, behind = (min(MARGIN, free // SCALE * SCALE) for free in (start, size - start - side))
    return slice(start - before, start + side + behind)


def _turned(picture: Any, turns: int) -> Any:
    """One of the eight positions of a square."""
    picture = np.rot90(picture, turns % 4)
    return picture[:, ::-1] if turns >= 4 else picture


def as_tensor(picture: npt.NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) of uint8 -> [3, H, W] of 0 ... 1."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


@lru_cache(maxsize=64)  # a small folder is decoded once
def _kept(file: Path, changed: int) -> npt.NDArray[np.uint8]:
    return np.asarray(read_image(file))


def _size(file: Path) -> tuple[int, int]:
    """Width and height; of a file that cannot be opened, what read_image says of it."""
    try:
        with Image.open(file) as image:
            return image.size
    except (Image.DecompressionBombError, OSError):
        return read_image(file).size
