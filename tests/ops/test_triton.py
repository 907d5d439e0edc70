"""The Triton kernels beyond simam's two directions: what they fuse, refuse, and how they compile.

Without a GPU they run in Triton's interpreter (see conftest.py), and are compiled for one all the same.
"""

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.commands import ROOT, run
from tests.support.simam_paths import FORMATS, KERNELS, TOLERANCES, Row, leaf, relative
from timm_attn import ATTENTION, ops
from timm_attn.ops.triton import tiles

pytest.importorskip('triton', reason='triton is not installed')
from timm_attn.ops.triton import epilogue as epilogues
from timm_attn.ops.triton import launch as launching
from timm_attn.ops.triton import simam as kernels
from timm_attn.ops.triton.epilogue import epilogue
from timm_attn.ops.triton.simam import simam_forward

DEVICE = KERNELS[0].device
DTYPES = pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
IN_FORMATS = pytest.mark.parametrize('memory_format', FORMATS, ids=str)


def image(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    return leaf(shape, dtype, memory_format, DEVICE).detach()


def is_laid_out(y: Tensor, x: Tensor) -> bool:
    return y.dtype == x.dtype and y.shape == x.shape and (y.stride() == x.stride() or y.numel() == 0)


def clamped(y: Tensor, ceiling: float | None) -> Tensor:
    return y if ceiling is None else y.clamp(0, ceiling)


@IN_FORMATS
@DTYPES
@pytest.mark.parametrize('row', KERNELS, ids=str, indirect=True)
def test_what_follows_simam(row: Row, dtype: torch.dtype, memory_format: torch.memory_format) -> None:  # noqa: F811
    """A factor per channel, terms and the clamp: each alone and all together."""
    shape = (1, 5, 9, 15)
    x, base = image(shape, dtype, memory_format), image(shape, dtype, torch.contiguous_format)
    factors, shift = (torch.randn(1, 5, 1, 1, device=DEVICE).to(dtype) for _ in range(2))
    cases = [(None, [shift], None), (None, [base], None), (None, [], math.inf), (factors, [], 2.0)]
    for factor, terms, ceiling in [*cases, (factors, [shift, base, shift], math.inf)]:
        y, _, scale = simam_forward(x, 0.01, factor, terms, ceiling)
        wide = x.double()
        refined = ops.simam_reference(wide, 0.01) * (1 if factor is None else factor.double())
        expected = clamped(sum((term.double() for term in terms), refined), ceiling)
        assert is_laid_out(y, x) and relative(y, expected) <= TOLERANCES[dtype]
        assert relative(scale.flatten(), (0.25 / (wide.var(dim=(2, 3), keepdim=True) + 0.01)).flatten()) < 1e-2


@IN_FORMATS
@DTYPES
@pytest.mark.parametrize('shape', [(2, 5, 7, 9), (3, 70, 5, 4), (1, 2, 33, 35), (1, 3, 1, 1), (0, 3, 4, 4)], ids=str)
def test_epilogue(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epilogues, '_TILE', 512)
    monkeypatch.setattr(epilogues, '_MAX_COLUMNS', 64)
    n, c, h, w = shape
    x, base = image(shape, dtype, memory_format), image(shape, dtype, torch.contiguous_format)
    gate, place, shift = (torch.rand(size, device=DEVICE) for size in ((n, c, 1, 1), (n, 1, h, w), (1, c, 1, 1)))
    strip = torch.rand(1, 1, h, w, device=DEVICE).to(dtype)
    cases = [(gate, [], None), (place, [base], math.inf), (base, [shift], 2.0), (None, [gate, base], None)]
    for factor, terms, ceiling in [*cases, (shift, [base, strip], math.inf), (strip, [shift, place], None)]:
        y = epilogue(x, factor, terms, ceiling)
        scaled = x.double() * (1 if factor is None else factor.double())
        expected = clamped(sum((term.double() for term in terms), scaled), ceiling)
        assert is_laid_out(y, x) and relative(y, expected) <= TOLERANCES[dtype]


def test_a_nan_is_not_hidden_by_a_clamp() -> None:
    x = torch.ones(1, 2, 3, 3, device=DEVICE)
    x[0, 1, 2, 2] = torch.nan
    broken = x.isnan()
    assert torch.equal(epilogue(x, None, [x], math.inf).isnan(), broken)
    assert torch.equal(simam_forward(x, 0.1, ceiling=6)[0].isnan().any(dim=(2, 3)), broken.any(dim=(2, 3)))


@pytest.mark.parametrize('key', ATTENTION)
def test_inference_takes_the_kernels(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attention's epilogue, as on a GPU; with gradients it is the reference."""
    for name in 'epilogue', 'simam':  # of ops these are the functions
        module = importlib.import_module(f'timm_attn.ops.{name}')
        monkeypatch.setattr(module, 'runs_on_triton', lambda x: True)
    attention, launches = ATTENTION[key], []
    for module in epilogues, kernels:
        monkeypatch.setattr(module, 'launch', lambda *a, **k: (launches.append(a[0]), launching.launch(*a, **k)))
    layer: Any = attention.layer(32, **attention.defaults, dtype=torch.float64).eval().to(DEVICE)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, base = torch.randn(2, 2, 32, 5, 7, dtype=torch.float64, device=DEVICE)
    before = x.clone()
    with torch.no_grad(), ops.use_simam_path('reference'):
        plain, expected = layer(x), (layer(x) + base).relu()
    with torch.no_grad():
        torch.testing.assert_close(layer.epilogue(x, [], None), plain)
        torch.testing.assert_close(layer.epilogue(x, [base], math.inf), expected)
    assert launches and torch.equal(x, before)
    launches.clear()
    x.requires_grad_()
    torch.testing.assert_close(layer.epilogue(x, [base], math.inf), expected)
    assert not launches


def maps(**kwargs: Any) -> Tensor:
    return torch.zeros(2, 3, 4, 4, device=DEVICE, **kwargs)


def numbers(channels: int) -> Tensor:
    return torch.zeros(1, channels, 1, 1, device=DEVICE)


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    'dtype': (ValueError, 'but got torch.int64', lambda: simam_forward(maps(dtype=torch.int64), 0.1)),
    'dtype of a pass': (ValueError, 'but got torch.int64', lambda: epilogue(maps(dtype=torch.int64), None, [], None)),
    'layout': (ValueError, 'strides', lambda: simam_forward(maps()[:, :, ::2], 0.1)),
    'layout of a pass': (ValueError, 'strides', lambda: epilogue(maps()[:, :, ::2], None, [], None)),
    'factors': (ValueError, r'factor must broadcast to \(2, 3, 4, 4\)', lambda: simam_forward(maps(), 0.1, numbers(2))),
    'map of factors': (ValueError, r'factor must be \(1, 3, 1, 1\)', lambda: simam_forward(maps(), 0.1, maps())),
    'shift': (ValueError, 'a term must broadcast', lambda: simam_forward(maps(), 0.1, None, [numbers(4)])),
    'base': (ValueError, 'a term must broadcast', lambda: simam_forward(maps(), 0.1, None, [maps()[:, :2]])),
    'factor': (ValueError, 'factor must broadcast', lambda: epilogue(maps(), maps()[..., :2], [], None)),
    'flat factor': (ValueError, 'factor must broadcast', lambda: epilogue(maps(), torch.zeros(4), [], None)),
    'terms': (ValueError, 'up to 2 terms, but got 3', lambda: epilogue(maps(), None, [maps()] * 3, None)),
    'gradient': (RuntimeError, 'simam_forward has no gradient', lambda: simam_forward(maps(requires_grad=True), 0.1)),
    'gradient of a pass': (
        RuntimeError,
        'epilogue has no gradient',
        lambda: epilogue(maps(), None, [maps(requires_grad=True)], None),
    ),
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
    assert len(launches) == 16 * len(gpus)
    assert {launch[0] for launch in launches} == {'_forward', '_backward', '_epilogue'}
    for gpu in range(len(gpus)):
        for name, read, tile, whole in launches[16 * gpu :][:10]:
            maps = (1 if name == '_forward' else 2) * (1 if whole == 'True' else 2)  # backward also reads two numbers
            assert maps <= int(read) / int(tile) <= maps * (1 if name == '_forward' else 1.3), (name, read, tile)
    assert [launch[3] for launch in launches[:10]] == ['True'] * 6 + ['False'] * 2 + ['True'] * 2


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
    z = epilogue(x, scale.new_full((*shape[:2], 1, 1), 0.5), [], None)
    last = x[-1:, -2:].double().requires_grad_()
    expected = ops.simam_reference(last, 0.01)
    expected.backward(last.detach())
    pairs = (y, expected), (gradient, last.grad), (z, last / 2)
    assert all(relative(a[-1:, -2:], b) < 1e-2 for a, b in pairs)


@IN_FORMATS
def test_maps_beyond_32_bits(memory_format: torch.memory_format) -> None:
    check_last_channels((2, 3, 4, 5), memory_format, DEVICE)
    if DEVICE == 'cpu':
        pytest.skip('no GPU: the kernels ran in the interpreter only, and on small maps')
    if torch.cuda.mem_get_info()[0] < 5 * 2**32:
        pytest.skip('the GPU has less than 20 GiB free')
    check_last_channels((33, 1024, 256, 256), memory_format, DEVICE)
