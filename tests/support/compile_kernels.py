"""Compiles kernels for GPUs that need not be there, as they would be launched; prints what each reads.

Arguments: the GPUs' compute capabilities, as 80. Run without TRITON_INTERPRET. One line per launch: the kernel, the
bytes that a program reads in wide loads, the bytes of its tile, and whether the tile is whole channels.
"""

import re
import sys
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from timm_attn.ops.triton import simam

CASES = [
    ((2, 64, 56, 56), torch.contiguous_format, torch.float32),
    ((2, 32, 28, 28), torch.contiguous_format, torch.bfloat16),
    ((2, 32, 14, 14), torch.contiguous_format, torch.float32),
    ((2, 64, 56, 56), torch.channels_last, torch.float32),
    ((2, 32, 14, 14), torch.channels_last, torch.float32),
]


class Absent:
    """The part of a GPU's driver that Triton's compiler calls."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(kernel: Any, programs: int, x: Tensor, *arguments: Any, **constants: Any) -> None:
    compiled = kernel.warmup(x, *arguments, grid=(programs,), **constants)
    wide = re.findall(r'ld\.global\S*\.v([24])\.[bf](32|64)', compiled.asm['ptx'])
    read = sum(int(count) * int(bits) // 8 for count, bits in wide) * 32 * constants['num_warps']
    elements = constants['BLOCK_C'] * constants['BLOCK_P']
    print(kernel.__name__, read, elements * x.element_size(), constants['WHOLE'])


def main(capability: int) -> None:
    driver.set_active(Absent(capability))
    simam.launch = compile_only
    for shape, memory_format, dtype in CASES:
        x = torch.empty(shape, dtype=dtype).contiguous(memory_format=memory_format)
        _, mean, scale = simam.simam_forward(x, 0.1)
        simam.simam_backward(x, x, mean, scale)
    odd = torch.empty(1, 3, 5, 5, dtype=torch.float64)
    simam.simam_forward(odd, 0.1)
    simam.simam_forward(odd[..., :1, :1].contiguous(), 0.1)


for argument in sys.argv[1:]:
    main(int(argument))
