"""PSNR and SSIM of the luma, as the tables of super-resolution print them (BAM Table 8; Ledig et al. 2017)."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
SHAVE = 4  # pixels of each border that are not compared: the scale


def luma(picture: Picture) -> Floats:
    """MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, (H, W, 3) of 0 ... 255 -> (H, W)."""
    return 16 + picture.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def y_psnr(picture: Picture, truth: Picture, shave: int = SHAVE) -> float:
    """10 log10(255^2 / mean squared error) of the two lumas, in dB; infinite for equal ones."""
    a, b = _shaved(picture, truth, shave)
    error = float(np.mean((a - b) ** 2))
    return float('inf') if error == 0 else float(10 * np.log10(255**2 / error))


def y_ssim(picture: Picture, truth: Picture, shave: int = SHAVE) -> float:
    """The mean SSIM of the two lumas: Gaussian windows of 11 x 11, sigma 1.5, those inside the picture alone."""
    a, b = _shaved(picture, truth, shave)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    means = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(means * (2 * covariance + c2) / (var_a + var_b + c2)))


def to_uint8(picture: Tensor) -> Picture:
    """A net's picture (3, H, W) of 0 ... 1 as it is saved and compared: (H, W, 3), rounded and clipped."""
    pixels: Picture = picture.detach().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def _shaved(picture: Picture, truth: Picture, shave: int) -> tuple[Floats, Floats]:
    for one in (picture, truth):
        if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3:
            raise ValueError(f'Expected RGB pictures (H, W, 3) of uint8, but got {one.shape} of {one.dtype}.')
    if picture.shape != truth.shape:
        raise ValueError(f'A picture of {_size(picture)} cannot be compared with one of {_size(truth)}.')
    least = 2 * shave + len(_GAUSS)
    if min(truth.shape[:2]) < least:
        raise ValueError(f'A picture of {_size(truth)} is too small: both sides need at least {least} pixels.')
    inside = slice(shave, -shave) if shave else slice(None)
    return luma(picture)[inside, inside], luma(truth)[inside, inside]


def _size(picture: Picture) -> str:
    return f'{picture.shape[1]} x {picture.shape[0]}'


_GAUSS = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_GAUSS /= _GAUSS.sum()


def _blur(x: Floats) -> Floats:
    """The Gaussian mean of every window inside the picture: (H, W) -> (H - 10, W - 10)."""
    rows = np.lib.stride_tricks.sliding_window_view(x, len(_GAUSS), axis=0) @ _GAUSS
    return np.lib.stride_tricks.sliding_window_view(rows, len(_GAUSS), axis=1) @ _GAUSS
