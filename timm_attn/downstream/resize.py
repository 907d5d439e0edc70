"""MATLAB's bicubic `imresize`, with which the pictures of super-resolution are reduced and the baseline enlarged."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def imresize(picture: npt.ArrayLike, height: int, width: int) -> Floats:
    """Bicubic resampling (a = -0.5), with antialiasing where it reduces; mirrored borders.

    Args:
        picture: (H, W) or (H, W, C), of any range.

    Returns:
        (height, width) or (height, width, C), neither rounded nor clipped.
    """
    pixels = np.asarray(picture, np.float64)
    rows, columns = _weights(pixels.shape[0], height), _weights(pixels.shape[1], width)
    wide = np.tensordot(columns, pixels, (1, 1)).swapaxes(0, 1)
    resized: Floats = np.tensordot(rows, wide, (1, 0))
    return resized


def imresize_uint8(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """The same for 8-bit pictures: rounded (halves up) and clipped."""
    return np.floor(np.clip(imresize(picture, height, width), 0, 255) + 0.5).astype(np.uint8)


@lru_cache(maxsize=32)
def _weights(size: int, new: int) -> Floats:
    """The (new, size) matrix of one direction; its rows sum to 1."""
    scale = new / size
    squeeze = min(scale, 1.0)  # the kernel grows by 1 / scale where pixels are merged
    centre = (np.arange(new) + 0.5) / scale - 0.5
    reach = int(np.ceil(4 / squeeze)) + 2
    taps = np.floor(centre - 2 / squeeze).astype(int)[:, None] + np.arange(reach)
    weights = _cubic(squeeze * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.abs((taps + size) % (2 * size) - size + 0.5) - 0.5  # ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
    matrix = np.zeros((new, size))
    np.add.at(matrix, (np.arange(new)[:, None], mirrored.astype(int)), weights)
    return matrix


def _cubic(x: Floats) -> Floats:
    """Keys' kernel with a = -0.5."""
    x = np.abs(x)
    inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))
