"""The Triton kernels beyond simam's two directions: what takes them, what they refuse, and how they compile.

Without a GPU they run in Triton's interpreter (see conftest.py), and are compiled for one all the same.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.commands import ROOT, run
from tests.support.simam_paths import FORMATS, KERNELS, relative
from timm_attn import ATTENTION, ops
from timm_attn.ops import triton
from timm_attn.ops.triton import tiles

pytest.importorskip('triton', reason='triton is not installed')
from timm_attn.ops.triton import launch as launching
from timm_attn.ops.triton import simam as kernels
from timm_attn.ops.triton.simam import simam_forward

DEVICE = KERNELS[0].device
IN_FORMATS = pytest.mark.parametrize('memory_format', FORMATS, ids=str)


def test_a_nan_stays() -> None:
    x = torch.ones(1, 2, 3, 3, device=DEVICE)
    x[0, 1, 2, 2] = torch.nan
    assert torch.equal(simam_forward(x, 0.1)[0].isnan().any(dim=(2, 3)), x.isnan().any(dim=(2, 3)))


def test_layers_take_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with and without gradients."""
    module = importlib.import_module('timm_attn.ops.simam')  # of ops this is the function
    monkeypatch.setattr(module, 'takes_triton', lambda x: True)
    launches: list[Any] = []
    monkeypatch.setattr(kernels, 'launch', lambda *a, **k: (launches.append(a[0]), launching.launch(*a, **k)))
    layer = ATTENTION['simam'].layer(32)
    x = torch.randn(2, 32, 5, 7, device=DEVICE)
    expected = ops.simam_reference(x, 1e-4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
    layer(x.requires_grad_()).sum().backward()
    assert [kernel.__name__ for kernel in launches] == ['_forward', '_forward', '_backward']


def maps(**kwargs: Any) -> Tensor:
    return torch.zeros(2, 3, 4, 4, device=DEVICE, **kwargs)


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    'dtype': (ValueError, 'but got torch.int64', lambda: simam_forward(maps(dtype=torch.int64), 0.1)),
    'layout': (ValueError, 'strides', lambda: simam_forward(maps()[:, :, ::2], 0.1)),
    'gradient': (RuntimeError, 'simam_forward has no gradient', lambda: simam_forward(maps(requires_grad=True), 0.1)),
}


@pytest.mark.parametrize('error, message, call', REFUSED.values(), ids=REFUSED)
def test_what_is_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


TILES = {  # shape, memory format, dtype -> whether a channel fits on chip, channels per program
    ((8, 64, 56, 56), torch.contiguous_format, torch.float32): (True, 1),
    ((8, 64, 128, 128), torch.contiguous_format, torch.float32): (True, 1),
    ((8, 64, 128, 128), torch.contiguous_format, torch.float64): (False, 1),
    ((8, 64, 129, 129), torch.contiguous_format, torch.bfloat16): (False, 1),
    ((8, 512, 7, 7), torch.contiguous_format, torch.float16): (True, 32),
    ((1, 3, 7, 7), torch.contiguous_format, torch.float16): (True, 4),
    ((8, 512, 7, 7), torch.channels_last, torch.float32): (True, 32),
    ((8, 64, 28, 28), torch.channels_last, torch.float32): (True, 8),
    ((8, 64, 28, 28), torch.channels_last, torch.bfloat16): (True, 16),
    ((8, 64, 56, 56), torch.channels_last, torch.float32): (False, 8),
}


@pytest.mark.parametrize('case, expected', TILES.items(), ids=map(str, TILES))
def test_tiles(case: tuple[Any, Any, Any], expected: tuple[bool, int]) -> None:
    shape, memory_format, dtype = case
    tile = tiles.tiles_of(torch.empty(shape, dtype=dtype, device='meta').contiguous(memory_format=memory_format))
    assert (tile.whole, tile.block_channels) == expected
    assert tile.samples * tile.channels == shape[0] * shape[1] and tile.pixels == shape[2] * shape[3]
    assert tile.whole == (tile.block_pixels >= tile.pixels)
    assert tile.programs * tile.block_channels >= shape[0] * shape[1]


def test_kernels_compile_and_read_each_map_once(tmp_path: Path) -> None:
    """The interpreter takes more than the compiler. Whole channels: the wide loads of a program add up to its tile."""
    script, gpus = ROOT / 'tests' / 'support' / 'compile_kernels.py', ['80', '90']
    printed = run(sys.executable, '-W', 'ignore', script, *gpus, TRITON_INTERPRET='0', TRITON_CACHE_DIR=str(tmp_path))
    launches = [line.split() for line in printed.splitlines()]
    assert len(launches) == 12 * len(gpus)
    assert {launch[0] for launch in launches} == {'_forward', '_backward'}
    for gpu in range(len(gpus)):
        for name, read, tile, whole in launches[12 * gpu :][:10]:
            maps = (1 if name == '_forward' else 2) * (1 if whole == 'True' else 2)  # backward also reads two numbers
            assert maps <= int(read) / int(tile) <= maps * (1 if name == '_forward' else 1.3), (name, read, tile)
    assert [launch[3] for launch in launches[:10]] == ['True'] * 6 + ['False'] * 2 + ['True'] * 2


def test_the_kernels_are_opt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU simam takes them where the environment says so, and nowhere else."""
    monkeypatch.setattr(triton, 'runs_on_triton', lambda x: True)  # as on a GPU
    x = torch.zeros(2, 3, 4, 4, device='meta')
    with torch.no_grad():
        for said, taken in {None: False, '0': False, '1': True}.items():
            if said is not None:
                monkeypatch.setenv('TIMM_ATTN_TRITON', said)
            assert (ops.simam_path(x) == 'triton') == taken
    monkeypatch.setattr(triton, 'runs_on_triton', lambda x: False)
    assert ops.simam_path(x) == 'blocks'


WITHOUT = """
import sys
sys.modules['triton'] = None  # any import of it fails
import torch, timm_attn
from timm_attn import ATTENTION, ops
x = torch.randn(2, 3, 4, 4)
assert ops.simam_path(x) == 'blocks'
torch.testing.assert_close(ops.simam(x), ops.simam_reference(x, 1e-4))
try:
    with ops.use_simam_path('triton'):
        pass
except RuntimeError as error:
    print(error)
"""


def test_without_triton() -> None:
    assert 'needs the package triton, which is not installed' in run(sys.executable, '-c', WITHOUT)


def test_on_the_cpu_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, 'JITFunction', object)  # as if the kernels were compiled
    with ops.use_simam_path('triton'), pytest.raises(RuntimeError, match='started with TRITON_INTERPRET=1'):
        ops.simam(torch.zeros(2, 3, 4, 4))


def check_last_channels(shape: tuple[int, ...], memory_format: torch.memory_format, device: str) -> None:
    x = torch.empty(shape, dtype=torch.bfloat16, device=device, memory_format=memory_format).normal_()
    y, mean, scale = simam_forward(x, 0.01)
    gradient = kernels.simam_backward(x, x, mean, scale)
    last = x[-1:, -2:].double().requires_grad_()
    expected = ops.simam_reference(last, 0.01)
    expected.backward(last.detach())
    pairs = (y, expected), (gradient, last.grad)
    assert all(relative(a[-1:, -2:], b) < 1e-2 for a, b in pairs)


@IN_FORMATS
def test_maps_beyond_32_bits(memory_format: torch.memory_format) -> None:
    check_last_channels((2, 3, 4, 5), memory_format, DEVICE)
    if DEVICE == 'cpu':
        pytest.skip('no GPU: the kernels ran in the interpreter only, and on small maps')
    if torch.cuda.mem_get_info()[0] < 5 * 2**32:
        pytest.skip('the GPU has less than 20 GiB free')
    check_last_channels((33, 1024, 256, 256), memory_format, DEVICE)
