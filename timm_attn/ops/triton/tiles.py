"""How a map is divided into tiles, one per program of a kernel."""

from math import gcd
from typing import NamedTuple

from torch import Tensor

from timm_attn.ops.layout import rows_of
from timm_attn.ops.statistics import computing_dtype

# In bytes of the computing dtype: the most that a program keeps in registers, its step through a larger channel, and
# the tile up to which it takes several channels. Chosen by the registers that the compiler reports, not by timing.
ON_CHIP_BYTES = 1 << 16
STEP_BYTES = 1 << 14
SMALL_BYTES = 1 << 13
SECTOR_BYTES = 32  # the smallest memory access: narrower columns of a channels_last map would waste a part of it


class Tiles(NamedTuple):
    """A map as samples of (channels, pixels), and the tile of one program: block_channels whole channels.

    Contiguous maps are one sample of N * C channels, channels_last maps are N samples of C interleaved channels.
    """

    samples: int
    channels: int
    pixels: int
    channels_last: bool
    block_channels: int
    block_pixels: int  # per step
    whole: bool  # one step takes all pixels, so the map is read once

    @property
    def programs(self) -> int:
        return self.samples * -(-self.channels // self.block_channels)

    @property
    def align(self) -> int:
        """The largest power of two up to 16 that divides the pixels (4 for 14 x 14): Triton itself looks for 16."""
        return gcd(self.pixels, 16)

    @property
    def warps(self) -> int:
        return min(16, max(4, self.block_channels * self.block_pixels // 512))


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below a positive number."""
    return 1 << (number - 1).bit_length()


def checked_rows(x: Tensor) -> Tensor:
    """rows_of a map.

    Raises:
        ValueError: the map is neither contiguous nor channels_last.
    """
    rows = rows_of(x)
    if rows is None:
        raise ValueError(
            f'The Triton kernels take contiguous and channels_last maps, but got {tuple(x.shape)} with the strides '
            f'{x.stride()}.'
        )
    return rows


def tiles_of(x: Tensor) -> Tiles:
    """The tiles of a map.

    Raises:
        ValueError: the map is neither contiguous nor channels_last.
    """
    samples, channels, h, w = checked_rows(x).shape
    pixels = h * w
    least = SECTOR_BYTES // x.element_size()  # interleaved channels in a sector
    if x.is_contiguous():
        samples, channels, least = 1, samples, 1
    width = computing_dtype(x).itemsize
    block_pixels = power_of_two(pixels)
    block_channels = min(max(least, SMALL_BYTES // width // block_pixels), power_of_two(channels))
    whole = block_channels * block_pixels * width <= ON_CHIP_BYTES
    if not whole:
        block_pixels = max(1, STEP_BYTES // width // block_channels)
    return Tiles(samples, channels, pixels, not x.is_contiguous(), block_channels, block_pixels, whole)
