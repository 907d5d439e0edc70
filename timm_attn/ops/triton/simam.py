"""SimAM's forward and backward, one Triton kernel each.

A program takes whole channels. If their pixels fit on chip, the map is read once; larger channels are read twice, for
the statistics and for the result. The kernels have run in Triton's interpreter and were compiled for GPUs, but have not
run on one: their speed is unknown.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timm_attn.ops.layout import memory_format_of
from timm_attn.ops.statistics import computing_dtype
from timm_attn.ops.triton.launch import check_dtype, check_no_gradient, laid_out_as, launch
from timm_attn.ops.triton.tiles import Tiles, tiles_of


@triton.jit
def _place(channels, pixels, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """This program's channels in its sample and in the map, its first offset, the tile's offsets, and a pixel's stride.

    The first offset has 64 bits, for maps of 2^31 elements and more; offsets in a tile have 32.
    """
    blocks = tl.cdiv(channels, BLOCK_C)
    sample = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * BLOCK_C
    c = tl.arange(0, BLOCK_C)
    p = tl.arange(0, BLOCK_P)
    start = sample.to(tl.int64) * channels * pixels
    if CHANNELS_LAST:
        start += first
        tile = c[:, None] + p[None, :] * channels
        step = tl.cast(channels, tl.int64)
    else:
        start += first.to(tl.int64) * pixels
        tile = c[:, None] * pixels + p[None, :]
        step = tl.cast(1, tl.int64)
    return first + c, sample * channels + first + c, start, tile, p[None, :], step


@triton.jit
def _moments(x, inside, count):
    """Each channel's mean over its count pixels, and the sum of their squared deviations from it."""
    mean = tl.sum(x, 1) / count
    deviation = tl.where(inside, x - mean[:, None], 0.0)
    return mean, tl.sum(deviation * deviation, 1)


@triton.jit
def _write_refined(x, mean, scale, out_ptr, offsets, inside):
    deviation = x - mean[:, None]
    weights = tl.sigmoid(scale[:, None] * deviation * deviation + 0.5)
    tl.store(out_ptr + offsets, x * weights, mask=inside)


@triton.jit
def _forward(
    x_ptr,
    out_ptr,
    mean_ptr,
    scale_ptr,
    channels,
    pixels_by_align,
    E_LAMBDA: tl.constexpr,  # a runtime argument would be float32, also for float64 maps
    ALIGN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    WHOLE: tl.constexpr,
):
    dtype: tl.constexpr = mean_ptr.dtype.element_ty
    pixels = pixels_by_align * ALIGN
    channel, row, start, tile, p, step = _place(channels, pixels, CHANNELS_LAST, BLOCK_C, BLOCK_P)
    exists = channel < channels
    x_ptr += start
    out_ptr += start
    inside = exists[:, None] & (p < pixels)
    if WHOLE:
        x = tl.load(x_ptr + tile, mask=inside, other=0.0).to(dtype)
        mean, squares = _moments(x, inside, pixels)
    else:  # Chan et al.'s merge of partial moments, without cancellation
        mean = tl.zeros([BLOCK_C], dtype)
        squares = tl.zeros([BLOCK_C], dtype)
        for done in range(0, pixels, BLOCK_P):
            count = tl.minimum(pixels - done, BLOCK_P)
            inside = exists[:, None] & (p < count)
            x = tl.load(x_ptr + done * step + tile, mask=inside, other=0.0).to(dtype)
            part_mean, part_squares = _moments(x, inside, count)
            gap = part_mean - mean
            share = tl.cast(count, dtype) / (done + count)
            mean += gap * share
            squares += part_squares + gap * gap * done * share
    scale = 1.0 / (4.0 * (squares / tl.maximum(pixels - 1, 1) + E_LAMBDA))
    tl.store(mean_ptr + row, mean, mask=exists)
    tl.store(scale_ptr + row, scale, mask=exists)

    if WHOLE:
        _write_refined(x, mean, scale, out_ptr, tile, inside)
    else:
        for done in range(0, pixels, BLOCK_P):
            offsets = done * step + tile
            inside = exists[:, None] & (p < pixels - done)
            x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(dtype)
            _write_refined(x, mean, scale, out_ptr, offsets, inside)


@triton.jit
def _terms(x_ptr, grad_ptr, offsets, inside, mean, scale):
    """d, grad s and 2 a q d of simam_backward's equation, see simam_blocks."""
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(mean.dtype)
    grad = tl.load(grad_ptr + offsets, mask=inside, other=0.0).to(mean.dtype)
    d = x - mean[:, None]
    s = tl.sigmoid(scale[:, None] * d * d + 0.5)
    qd = 2 * scale[:, None] * d * (x * grad * (s - s * s))
    return d, s * grad, qd


@triton.jit
def _backward(
    x_ptr,
    grad_ptr,
    mean_ptr,
    scale_ptr,
    out_ptr,
    channels,
    pixels_by_align,
    ALIGN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    WHOLE: tl.constexpr,
):
    pixels = pixels_by_align * ALIGN
    channel, row, start, tile, p, step = _place(channels, pixels, CHANNELS_LAST, BLOCK_C, BLOCK_P)
    exists = channel < channels
    x_ptr += start
    grad_ptr += start
    out_ptr += start
    mean = tl.load(mean_ptr + row, mask=exists, other=0.0)
    scale = tl.load(scale_ptr + row, mask=exists, other=0.0)
    inside = exists[:, None] & (p < pixels)
    if WHOLE:
        d, direct, qd = _terms(x_ptr, grad_ptr, tile, inside, mean, scale)
        mean_qd = tl.sum(qd, 1)
        slope = tl.sum(qd * d, 1)
    else:
        mean_qd = tl.zeros([BLOCK_C], mean.dtype)
        slope = tl.zeros([BLOCK_C], mean.dtype)
        for done in range(0, pixels, BLOCK_P):
            inside = exists[:, None] & (p < pixels - done)
            d, direct, qd = _terms(x_ptr, grad_ptr, done * step + tile, inside, mean, scale)
            mean_qd += tl.sum(qd, 1)
            slope += tl.sum(qd * d, 1)
    mean_qd = (mean_qd / pixels)[:, None]
    slope = (slope * 4 * scale / tl.maximum(pixels - 1, 1))[:, None]
    if WHOLE:
        tl.store(out_ptr + tile, direct + qd - mean_qd - d * slope, mask=inside)
    else:
        for done in range(0, pixels, BLOCK_P):
            inside = exists[:, None] & (p < pixels - done)
            d, direct, qd = _terms(x_ptr, grad_ptr, done * step + tile, inside, mean, scale)
            tl.store(out_ptr + done * step + tile, direct + qd - mean_qd - d * slope, mask=inside)


def _shape_arguments(x: Tensor) -> tuple[Tiles, tuple[int, int], dict[str, Any]]:
    """The tiles of a map, and the positional and named arguments for them that both kernels take."""
    tiles = tiles_of(x)
    by_name = {
        'ALIGN': tiles.align,
        'CHANNELS_LAST': tiles.channels_last,
        'BLOCK_C': tiles.block_channels,
        'BLOCK_P': tiles.block_pixels,
        'WHOLE': tiles.whole,
        'num_warps': tiles.warps,
    }
    return tiles, (tiles.channels, tiles.pixels // tiles.align), by_name


def simam_forward(x: Tensor, e_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """SimAM of a map: x sigmoid(scale (x - mean)^2 + 1/2).

    Args:
        x: the map, (N, C, H, W), contiguous or channels_last.
        e_lambda: lambda of SimAM's Eq. 2.

    Returns:
        The result, laid out as x and in its dtype, and for simam_backward each channel's mean and
        scale = 1 / (4 (var + lambda)), of the rows of rows_of, float32 under half precision.

    Raises:
        ValueError: a layout or dtype that the kernel does not take.
        RuntimeError: a gradient is expected, or there is neither a GPU nor Triton's interpreter.
    """
    check_dtype(x)
    check_no_gradient('simam_forward', x)
    tiles, sizes, by_name = _shape_arguments(x)
    out = torch.empty_like(x, memory_format=memory_format_of(x))
    numbers = (tiles.samples, tiles.channels, 1, 1) if tiles.channels_last else (tiles.channels, 1, 1, 1)
    mean, scale = (torch.empty(numbers, dtype=computing_dtype(x), device=x.device) for _ in range(2))
    launch(
        _forward,
        tiles.programs,
        *(x, out, mean, scale, *sizes),
        E_LAMBDA=float(e_lambda),
        **by_name,
    )
    return out, mean, scale


def simam_inference(x: Tensor, e_lambda: float) -> Tensor:
    """The result of simam_forward alone."""
    return simam_forward(x, e_lambda)[0]


def simam_backward(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The gradient of SimAM's input, from that of its result and what simam_forward returned; equation in simam_blocks.

    Shape: (N, C, H, W) twice, one number per channel of the rows twice -> (N, C, H, W), laid out as x.
    """
    tiles, sizes, by_name = _shape_arguments(x)
    out = torch.empty_like(x, memory_format=memory_format_of(x))
    launch(_backward, tiles.programs, *(x, laid_out_as(x, grad), mean, scale, out, *sizes), **by_name)
    return out
