"""Luma, PSNR, SSIM and MATLAB's bicubic against scikit-image, torch and Pillow."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from timm_attn.downstream.metrics.psnr import luma, to_uint8, y_psnr, y_ssim
from timm_attn.downstream.resize import imresize, imresize_uint8

skimage_color = pytest.importorskip('skimage.color')
skimage_metrics = pytest.importorskip('skimage.metrics')
skimage_data = pytest.importorskip('skimage.data')


@pytest.fixture(scope='module')
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A part of a photograph, and its bicubic x4."""
    picture = skimage_data.astronaut()[:200, 100:332]
    return imresize_uint8(imresize_uint8(picture, 50, 58), 200, 232), picture


def test_luma_is_that_of_rgb2ycbcr(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert luma(pair[1]) == pytest.approx(skimage_color.rgb2ycbcr(pair[1])[..., 0], abs=1e-9)
    assert luma(np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8)).tolist() == [[pytest.approx(235), 16]]


def test_psnr_and_ssim_are_those_of_scikit_image_without_four_pixels_of_border(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    made, real = (luma(picture)[4:-4, 4:-4] for picture in pair)
    assert y_psnr(*pair) == pytest.approx(skimage_metrics.peak_signal_noise_ratio(real, made, data_range=255))
    options = dict(data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert y_ssim(*pair) == pytest.approx(skimage_metrics.structural_similarity(real, made, **options), abs=1e-9)
    assert 20 < y_psnr(*pair) < 35 and 0.6 < y_ssim(*pair) < 0.95


def test_the_border_does_not_count(pair: tuple[np.ndarray, np.ndarray]) -> None:
    real = pair[1].copy()
    real[:4], real[-4:], real[:, :4], real[:, -4:] = 0, 255, 0, 255
    assert y_psnr(pair[1], real) == float('inf') and y_ssim(pair[1], real) == pytest.approx(1)


@pytest.mark.parametrize(('height', 'width'), [(50, 58), (200, 232), (300, 348), (73, 91)])
def test_imresize_is_torchs_antialiased_bicubic_but_for_the_borders(
    pair: tuple[np.ndarray, np.ndarray], height: int, width: int
) -> None:
    """The kernels are the same, a = -0.5; MATLAB mirrors at the borders, torch leaves out what is beyond."""
    x = torch.from_numpy(pair[1]).permute(2, 0, 1)[None].double()
    theirs = F.interpolate(x, size=(height, width), mode='bicubic', antialias=True)[0].permute(1, 2, 0).numpy()
    ours, edge = imresize(pair[1], height, width), 8
    assert ours.shape == theirs.shape
    assert ours[edge:-edge, edge:-edge] == pytest.approx(theirs[edge:-edge, edge:-edge], abs=1e-9)


def test_imresize_keeps_flat_pictures_and_mirrors_the_border() -> None:
    assert imresize(np.full((9, 7, 3), 5.0), 36, 28) == pytest.approx(np.full((36, 28, 3), 5.0))
    ramp = np.arange(6.0)[None].repeat(4, axis=0)
    assert imresize(np.concatenate([ramp, ramp[:, ::-1]], axis=1), 4, 48)[:, :24] == pytest.approx(
        imresize(ramp, 4, 24)
    )
    assert imresize(ramp, 4, 6) == pytest.approx(ramp)


def test_pillow_gives_the_same_psnr_within_a_hundredth(pair: tuple[np.ndarray, np.ndarray]) -> None:
    small = Image.fromarray(imresize_uint8(pair[1], 50, 58))
    theirs = np.asarray(small.resize((232, 200), Image.Resampling.BICUBIC))
    assert y_psnr(pair[0], pair[1]) == pytest.approx(y_psnr(theirs, pair[1]), abs=0.01)


def test_a_nets_picture_is_rounded_and_clipped() -> None:
    picture = to_uint8(torch.tensor([-0.2, 0.5, 1.3])[:, None, None])
    assert picture.tolist() == [[[0, 128, 255]]] and picture.dtype == np.uint8


@pytest.mark.parametrize(
    ('made', 'real', 'message'),
    [
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 36, 3), np.uint8), '32 x 32 cannot be compared with one of 36'),
        (np.zeros((32, 32, 3)), np.zeros((32, 32, 3)), r'uint8, but got \(32, 32, 3\) of float64'),
        (np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8), r'\(H, W, 3\)'),
        (np.zeros((18, 40, 3), np.uint8), np.zeros((18, 40, 3), np.uint8), '40 x 18 is too small'),
    ],
)
def test_pictures_that_cannot_be_compared(made: np.ndarray, real: np.ndarray, message: str) -> None:
    for metric in (y_psnr, y_ssim):
        with pytest.raises(ValueError, match=message):
            metric(made, real)
