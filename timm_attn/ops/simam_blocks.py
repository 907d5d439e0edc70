"""SimAM in blocks of channels that fit the cache; backward keeps the input and two numbers per channel.

The plain formula reads its input nine times, writes six maps and keeps four of them for backward. Here each block is
read from memory once and written once, and backward computes the weights again.
"""

import math

import torch
from torch import Tensor

from timm_attn.ops.layout import rows_of
from timm_attn.ops.statistics import computing_dtype, widen

_BLOCK_BYTES = 1 << 22  # in the computing dtype: two blocks fit the shared cache


def _rows(x: Tensor) -> Tensor:
    rows = rows_of(x)
    assert rows is not None
    return rows


def _blocks(rows: Tensor) -> list[Tensor]:
    """Rows in parts of about _BLOCK_BYTES of their computing dtype; on a GPU in one part."""
    whole_bytes = rows.numel() * computing_dtype(rows).itemsize
    if whole_bytes <= _BLOCK_BYTES or rows.device.type != 'cpu':
        return [rows]
    return list(rows.split(max(1, len(rows) * _BLOCK_BYTES // whole_bytes)))


def _weights(x: Tensor, e_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """SimAM's weights of some rows, each channel's mean, and its 1 / sqrt(var + epsilon) as a norm defines it.

    A norm computes (x - mean) / sqrt(var + epsilon), the root of SimAM's (x - mean)^2 / (4 (var + lambda)) up to a
    factor, in one call. Norms divide the variance by M, so their epsilon is lambda (M - 1) / M.
    """
    count, channels, h, w = x.shape
    share = _share(x)
    eps = e_lambda * share if share else e_lambda
    if channels == 1:
        weight = x.new_full((h, w), math.sqrt(share / 4))  # torch is slower without a weight
        z, mean, inverse = torch.native_layer_norm(x, (h, w), weight, None, eps)
        z.square_()
    elif count == 1:
        weight = x.new_full((channels,), math.sqrt(share / 4))
        z, mean, inverse = torch.native_batch_norm(x, weight, None, None, None, True, 0.0, eps)
        z.square_()
    else:
        mean = x.mean(dim=(2, 3), keepdim=True)
        z = (x - mean).square_()
        inverse = z.mean(dim=(2, 3), keepdim=True).add_(eps).rsqrt_()
        z.mul_(inverse.square().mul_(share / 4))
    return z.add_(0.5).sigmoid_(), mean, inverse


def _share(x: Tensor) -> float:
    """(M - 1) / M of a map's M pixels."""
    pixels = x.shape[2] * x.shape[3]
    return (pixels - 1) / pixels


def simam_inference(x: Tensor, e_lambda: float) -> Tensor:
    """The result of simam_forward alone."""
    blocks = _blocks(_rows(x))
    if len(blocks) > 1:
        return simam_forward(x, e_lambda)[0]
    wide = widen(blocks[0])
    return _weights(wide, e_lambda)[0].mul_(wide).to(x.dtype).view_as(x)


def simam_forward(x: Tensor, e_lambda: float) -> tuple[Tensor, Tensor, Tensor]:
    """SimAM of a map that rows_of can view, and for backward each channel's mean and 1 / (4 (var + lambda)).

    Shape: (N, C, H, W) -> (N, C, H, W), laid out as x, and twice one number per channel of the rows, (N * C, 1, 1, 1)
    or (N, C, 1, 1), float32 under half precision.
    """
    out, kept = torch.empty_like(x), []
    for part, result in zip(_blocks(_rows(x)), _blocks(_rows(out)), strict=True):
        wide = widen(part)
        weights, *numbers = _weights(wide, e_lambda)
        torch.mul(weights, wide, out=result)
        kept.append([number.view(part.shape[0], part.shape[1], 1, 1) for number in numbers])
    mean, inverse = (torch.cat(numbers) for numbers in zip(*kept, strict=True))
    return out, mean, inverse.square_().mul_(_share(x) / 4)


def simam_backward(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The gradient of SimAM's input; grad is laid out as x.

    With d = x - mean, a = scale, s = sigmoid(a d^2 + 1/2) and q = grad x s (1 - s):
    grad s + 2 a (q d - mean(q d)) - 8 a^2 sum(q d^2) / (M - 1) d.
    """
    out = torch.empty_like(x)
    freedom = max(x.shape[2] * x.shape[3] - 1, 1)
    blocks = [_blocks(_rows(t)) for t in (x, grad, out)]
    sizes = [len(part) for part in blocks[0]]
    for part, grads, result, m, a in zip(*blocks, mean.split(sizes), scale.split(sizes), strict=True):
        wide, g = widen(part), widen(grads)
        d = wide - m
        s = d.square().mul_(a).add_(0.5).sigmoid_()
        q = s.square().neg_().add_(s).mul_(wide).mul_(g)
        total = s.mul_(g)
        q.mul_(d).mul_(2 * a)  # 2 a q d
        total.add_(q).sub_(q.mean(dim=(2, 3), keepdim=True))
        slope = q.mul_(d).sum(dim=(2, 3), keepdim=True).mul_(4 * a / freedom)  # 8 a^2 sum(q d^2) / (M - 1)
        torch.sub(total, d.mul_(slope), out=result)
    return out
