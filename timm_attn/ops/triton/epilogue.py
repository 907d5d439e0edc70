"""ops.epilogue as one Triton kernel, which reads and writes each element once.

It has run in Triton's interpreter and was compiled for GPUs, but has not run on one.
"""

from collections.abc import Sequence
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor

from timm_attn.ops.layout import memory_format_of
from timm_attn.ops.statistics import computing_dtype
from timm_attn.ops.triton.launch import broadcast, check_dtype, check_no_gradient, laid_out_as, launch
from timm_attn.ops.triton.tiles import checked_rows, power_of_two

_TILE = 1 << 12  # elements per program
_MAX_COLUMNS = 1 << 10
_MOST_TERMS = 2


@triton.jit
def _operand(
    ptr, start, tile, row, column, exists, inside, rows_of_sample, columns,
    KIND: tl.constexpr, PER_SAMPLE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    if KIND == 'map':
        value = tl.load(ptr + start + tile, mask=inside, other=0.0).to(DTYPE)
    elif KIND == 'row':  # one number per row
        index = row if PER_SAMPLE else row % rows_of_sample
        value = tl.load(ptr + index, mask=exists, other=0.0).to(DTYPE)[:, None]
    else:  # one number per column
        index = (row // rows_of_sample if PER_SAMPLE else row * 0)[:, None] * columns + column[None, :]
        value = tl.load(ptr + index, mask=inside, other=0.0).to(DTYPE)
    return value


@triton.jit
def _epilogue(
    x_ptr,
    out_ptr,
    factor_ptr,  # it and the terms may be None
    first_ptr,
    second_ptr,
    rows,
    columns_by_align,
    rows_of_sample,
    ALIGN: tl.constexpr,
    FACTOR: tl.constexpr,
    FACTOR_PER_SAMPLE: tl.constexpr,
    FIRST: tl.constexpr,
    FIRST_PER_SAMPLE: tl.constexpr,
    SECOND: tl.constexpr,
    SECOND_PER_SAMPLE: tl.constexpr,
    CEILING: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    columns = columns_by_align * ALIGN
    blocks = tl.cdiv(columns, BLOCK_C)
    above = tl.program_id(0) // blocks * BLOCK_R
    r = tl.arange(0, BLOCK_R)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    row = above + r
    exists = row < rows
    inside = exists[:, None] & (c < columns)[None, :]
    start = above.to(tl.int64) * columns  # maps may have more than 2^31 elements
    tile = r[:, None] * columns + c[None, :]
    y = tl.load(x_ptr + start + tile, mask=inside, other=0.0).to(DTYPE)
    if factor_ptr is not None:
        y *= _operand(
            factor_ptr, start, tile, row, c, exists, inside, rows_of_sample, columns, FACTOR, FACTOR_PER_SAMPLE, DTYPE
        )
    if first_ptr is not None:
        y += _operand(
            first_ptr, start, tile, row, c, exists, inside, rows_of_sample, columns, FIRST, FIRST_PER_SAMPLE, DTYPE
        )
    if second_ptr is not None:
        y += _operand(
            second_ptr, start, tile, row, c, exists, inside, rows_of_sample, columns, SECOND, SECOND_PER_SAMPLE, DTYPE
        )
    if CEILING is not None:  # NaN stays NaN
        y = tl.where(y < 0, 0.0, y)
        y = tl.where(y > CEILING, CEILING, y)
    tl.store(out_ptr + start + tile, y, mask=inside)


def _described(x: Tensor, operand: Tensor | None, name: str) -> tuple[Tensor | None, str, bool]:
    """An operand as the kernel reads it: its values, its KIND ('map', 'row' or 'column'), and whether it is PER_SAMPLE.

    Rows and columns are channels and pixels of contiguous maps, pixels and channels of channels_last ones.
    """
    if operand is None:
        return None, '', False
    wide = broadcast(x, operand, name)
    samples, channels, *pixels = operand.shape
    if channels != 1 and pixels != [1, 1]:
        return laid_out_as(x, wide), 'map', True
    spans = wide[:samples, :, :1, :1] if pixels == [1, 1] else wide[:samples, :1]
    by_row = (pixels == [1, 1]) == x.is_contiguous()
    return spans.contiguous(), 'row' if by_row else 'column', samples == len(x)


def epilogue(x: Tensor, factor: Tensor | None, terms: Sequence[Tensor], ceiling: float | None) -> Tensor:
    """x factor + terms, clamped to [0, ceiling] if there is a ceiling (inf is ReLU, 6 ReLU6). For inference.

    Args:
        x: the map, (N, C, H, W), contiguous or channels_last; it is not overwritten.
        factor: broadcasts to the map, such as gates of (N, C, 1, 1) or (N, 1, H, W); or None.
        terms: up to two tensors that broadcast to the map.
        ceiling: the largest value; None for no clamp.

    Returns:
        (N, C, H, W), laid out as x and in its dtype, computed in float32 for half-precision maps.

    Raises:
        ValueError: a layout, shape, device or dtype that the kernel does not take.
        RuntimeError: a gradient is expected, or there is neither a GPU nor Triton's interpreter.
    """
    check_dtype(x)
    check_no_gradient('epilogue', x, factor, *terms)
    if len(terms) > _MOST_TERMS:
        raise ValueError(f'epilogue adds up to {_MOST_TERMS} terms, but got {len(terms)}.')
    samples, interleaved, h, w = checked_rows(x).shape
    pixels = h * w
    rows, columns = (samples, pixels) if x.is_contiguous() else (samples * pixels, interleaved)
    first, second = (_described(x, term, 'a term') for term in (*terms, None, None)[:_MOST_TERMS])
    gate = _described(x, factor, 'factor')
    out = torch.empty_like(x, memory_format=memory_format_of(x))
    if out.numel() == 0:
        return out
    block_columns = min(power_of_two(columns), _MAX_COLUMNS)
    block_rows = min(power_of_two(rows), _TILE // block_columns)
    align = gcd(columns, 16)
    launch(
        _epilogue,
        -(-rows // block_rows) * -(-columns // block_columns),
        *(x, out, gate[0], first[0], second[0], rows, columns // align, rows // len(x)),
        ALIGN=align,
        FACTOR=gate[1],
        FACTOR_PER_SAMPLE=gate[2],
        FIRST=first[1],
        FIRST_PER_SAMPLE=first[2],
        SECOND=second[1],
        SECOND_PER_SAMPLE=second[2],
        CEILING=ceiling,
        DTYPE=tl.float64 if computing_dtype(x) == torch.float64 else tl.float32,
        BLOCK_R=block_rows,
        BLOCK_C=block_columns,
        num_warps=8,
    )
    return out
