"""The paths of ops.simam as rows: each with the device and the shapes that it is tested on."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from timm_attn.ops.triton import triton_is_installed

FORMATS = [torch.contiguous_format, torch.channels_last]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
GPUS = ['cuda'] if torch.cuda.is_available() else []
SHAPES = [(2, 5, 7, 9), (1, 3, 1, 1), (0, 3, 4, 4), (1, 1, 1, 5)]
LARGE = [(3, 64, 56, 56), (2, 600, 28, 28)]
SEVERAL = {False: [(2, 70, 7, 7), (1, 9, 20, 14)], True: [(1, 20, 9, 15)]}  # programs, without and with steps


class Row(NamedTuple):
    """A path and where it is tested."""

    path: str
    device: str
    shapes: list[tuple[int, ...]]
    in_steps: bool = False  # as if nothing but the smallest channels fitted on chip

    def __str__(self) -> str:
        return f'{self.path}{"-in-steps" * self.in_steps}-{self.device}'


BLOCKS = [Row('blocks', device, SHAPES + LARGE) for device in ('cpu', *GPUS)]
KERNELS = [
    Row('triton', device, SHAPES + SEVERAL[steps], steps) for device in GPUS or ['cpu'] for steps in (False, True)
]
NO_TRITON = pytest.mark.skipif(not triton_is_installed(), reason='triton is not installed')
ROWS = [*BLOCKS, *(pytest.param(row, marks=NO_TRITON) for row in KERNELS)]


def leaf(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format, device: str = 'cpu') -> Tensor:
    x = (3 * torch.randn(shape, dtype=torch.float64) + 1).to(device, dtype)
    return x.contiguous(memory_format=memory_format).requires_grad_()


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()
