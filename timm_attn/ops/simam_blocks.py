"""SimAM in blocks of channels that stay in the cache: in place, and with two numbers a channel kept for backward.

The formula, written out, walks its input nine times, writes six maps and keeps four of them for backward. Here a block
is read from memory once and written once, whatever is done to it in between; backward reads the input again instead of
keeping maps.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_BLOCK_BYTES = 1 << 22  # of the map, in its computing dtype: two of them fit the cache that cores share


def rows_of(x: Tensor) -> Tensor | None:
    """A map as (rows, pixels, channels of a row) without a copy, or None if its layout allows no such view.

    (N, C, H, W) in contiguous memory is (N * C, H * W, 1), in channels_last (N, H * W, C).
    """
    n, c, h, w = x.shape
    if x.is_contiguous():
        return x.view(n * c, h * w, 1)
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).view(n, h * w, c)
    return None


def map_of(x: Tensor, rows: Tensor) -> Tensor:
    """The map of rows, laid out as x: the inverse of rows_of."""
    n, c, h, w = x.shape
    return rows.view(n, c, h, w) if x.is_contiguous() else rows.view(n, h, w, c).permute(0, 3, 1, 2)


def _rows_like(values: Tensor, x: Tensor) -> Tensor:
    """The rows of a tensor that broadcasts to the map x, laid out as those of x; a number a channel stays one."""
    n, c, _, _ = x.shape
    if values.shape[2:] == (1, 1):
        channels = values.expand(n, c, 1, 1)
        return channels.reshape(n * c, 1, 1) if x.is_contiguous() else channels.reshape(n, 1, c)
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    rows = rows_of(values.expand_as(x).contiguous(memory_format=layout))
    assert rows is not None
    return rows


def _blocks(rows: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of rows of about _BLOCK_BYTES; one of all of them where there is no such cache."""
    bytes_of_row = rows.shape[1] * rows.shape[2] * dtype.itemsize
    step = max(1, _BLOCK_BYTES // bytes_of_row if rows.device.type == 'cpu' else len(rows))
    for start in range(0, max(1, len(rows)), step):  # also of no rows there is one
        yield slice(start, start + step)


def computing_dtype(x: Tensor) -> torch.dtype:
    """float32 for half-precision maps, otherwise their own."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _rows(x: Tensor) -> Tensor:
    rows = rows_of(x)
    assert rows is not None
    return rows


def _exponents(rows: Tensor, e_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean)^2 / (4 (var + lambda)), and each channel's mean and what a norm divides by, inverted.

    Up to a factor the root is what a norm computes, in one call and in one pass over what the cache of a core holds.
    Norms divide the variance by M, so their epsilon is lambda (M - 1) / M.
    """
    count, pixels, channels = rows.shape
    share = (pixels - 1) / pixels
    eps = e_lambda * share if pixels > 1 else e_lambda
    if channels == 1:
        weight = rows.new_full((pixels,), math.sqrt(share / 4))  # without one the norm takes a slower way
        z, mean, deviation = torch.native_layer_norm(rows.squeeze(2), (pixels,), weight, None, eps)
        return z.square_().unsqueeze(2), mean, deviation
    if count == 1:
        weight = rows.new_full((channels,), math.sqrt(share / 4))
        image = rows.transpose(1, 2).unsqueeze(3)
        z, mean, deviation = torch.native_batch_norm(image, weight, None, None, None, True, 0.0, eps)
        return z.square_().squeeze(3).transpose(1, 2), mean, deviation
    mean = rows.mean(dim=1, keepdim=True)
    z = (rows - mean).square_()
    deviation = z.mean(dim=1, keepdim=True).add_(eps).rsqrt_()
    return z.mul_(deviation.square().mul_(share / 4)), mean, deviation


def _kept(rows: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean and 1 / (4 (var + lambda)), (rows, 1, channels), of what _exponents gave."""
    count, pixels, channels = rows.shape
    scale = deviation.square().mul_((pixels - 1) / (4 * pixels))
    return mean.view(count, 1, channels), scale.view(count, 1, channels)


def simam_inference(x: Tensor, e_lambda: float) -> Tensor:
    """simam_forward where nothing is kept for backward."""
    rows = _rows(x)
    dtype = computing_dtype(rows)
    if rows.numel() * dtype.itemsize > _BLOCK_BYTES:
        return simam_forward(x, e_lambda)[0]
    t = rows.to(dtype)
    weights = _exponents(t, e_lambda)[0].add_(0.5).sigmoid_()
    return map_of(x, weights.mul_(t).to(rows.dtype))


def simam_forward(x: Tensor, e_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """SimAM of a map that rows_of can view, and for backward each channel's mean and 1 / (4 (var + lambda)).

    Shape: (N, C, H, W) -> (N, C, H, W), laid out as x, and (rows, 1, channels) twice, float32 under half precision.
    """
    rows = _rows(x)
    dtype = computing_dtype(rows)
    out, kept = torch.empty_like(rows), []
    for block in _blocks(rows, dtype):
        t = rows[block].to(dtype)
        exponents, *numbers = _exponents(t, e_lambda)
        torch.mul(exponents.add_(0.5).sigmoid_(), t, out=out[block])
        kept.append(_kept(t, *numbers))
    mean, scale = (torch.cat(numbers) for numbers in zip(*kept, strict=True))
    return map_of(x, out), mean, scale


def simam_over(
    x: Tensor, e_lambda: float, factor: Tensor | None, terms: Sequence[Tensor], ceiling: float | None
) -> Tensor:
    """SimAM of a map, scaled, shifted and clamped as in simam_last_pass, written over it."""
    rows, dtype = _rows(x), computing_dtype(x)
    scales = [] if factor is None else [_rows_like(factor, x)]
    shifts = [_rows_like(term, x) for term in terms]
    for block in _blocks(rows, dtype):
        t = rows[block].to(dtype)
        t.mul_(_exponents(t, e_lambda)[0].add_(0.5).sigmoid_())
        for scale in scales:
            t.mul_(scale[block])
        for shift in shifts:
            t.add_(shift[block])
        if ceiling is not None:
            t.clamp_(0.0, ceiling)
        if rows.dtype != dtype:
            rows[block] = t
    return x


def simam_backward(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The gradient of SimAM's input; grad is laid out as x.

    With d = x - mean, a = scale, s = sigmoid(a d^2 + 1/2) and q = grad x s (1 - s):
    grad s + 2 a (q d - mean(q d)) - 8 a^2 sum(q d^2) / (M - 1) d.
    """
    rows, grads = _rows(x), _rows(grad)
    dtype, pixels = mean.dtype, rows.shape[1]
    out = torch.empty_like(rows)
    for block in _blocks(rows, dtype):
        t, g, a = rows[block].to(dtype), grads[block].to(dtype), scale[block]
        d = t - mean[block]
        s = d.square().mul_(a).add_(0.5).sigmoid_()
        q = s.square().neg_().add_(s).mul_(t).mul_(g)
        total = s.mul_(g)
        q.mul_(d).mul_(2 * a)
        total.add_(q).sub_(q.mean(dim=1, keepdim=True))
        pull = q.mul_(d).sum(dim=1, keepdim=True).mul_(4 * a / max(pixels - 1, 1))
        out[block] = total.sub_(d.mul_(pull))
    return map_of(x, out)
