"""ops.epilogue, ops.simam_epilogue and the layers' own against their definitions, in place and out of place."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from timm_attn import ATTENTION, ops

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
FORMATS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 5, 7, 9), (1, 3, 1, 1), (0, 4, 5, 5), (3, 65, 56, 56), (1, 7, 200, 211)]  # below and above a piece
CEILINGS = [None, math.inf, 6.0]


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fresh memory is NaN: what a path forgets to write fails."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def clamped(y: Tensor, ceiling: float | None) -> Tensor:
    return y if ceiling is None else y.clamp(0, ceiling)


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype == dtype and actual.shape == expected.shape
    error = (actual.double() - expected).norm() / expected.norm().clamp(min=1e-30)
    assert error <= TOLERANCES[dtype]


def random_map(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    return (2 * torch.randn(shape, dtype=torch.float64) + 1).to(dtype).contiguous(memory_format=memory_format)


@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_epilogue(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    n, c, h, w = shape
    x, base = (random_map(shape, dtype, memory_format) for _ in range(2))
    other = random_map(shape, dtype, torch.contiguous_format)  # whatever the layout of x
    factors = [None, torch.rand(n, c, 1, 1).to(dtype), torch.rand(n, 1, h, w).to(dtype), torch.rand(shape).to(dtype)]
    shift = torch.randn(1, c, 1, 1).to(dtype)
    for i, factor in enumerate(factors):
        for terms in ([], [base], [shift, other]):
            y = x.double() if factor is None else x.double() * factor.double()
            expected = clamped(sum((term.double() for term in terms), y), CEILINGS[i % 3])
            with torch.inference_mode():
                assert_near(ops.epilogue(x.clone(), factor, terms, CEILINGS[i % 3]), expected, dtype)
            assert_near(ops.epilogue(x, factor, terms, CEILINGS[i % 3]), expected, dtype)  # with gradients wanted


@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_simam_epilogue(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x, base = (random_map(shape, dtype, memory_format) for _ in range(2))
    other = random_map(shape, dtype, torch.contiguous_format)
    shift = torch.randn(1, shape[1], 1, 1).to(dtype)
    factors = [None, torch.randn(1, shape[1], 1, 1).to(dtype)] * 2
    for factor, terms, ceiling in zip(
        factors, ([], [base], [shift], [shift, other]), [None, 1.5, None, math.inf], strict=True
    ):
        y = ops.simam_reference(x.double(), 0.01) * (1 if factor is None else factor.double())
        expected = clamped(sum((term.double() for term in terms), y), ceiling)
        with torch.inference_mode():
            assert_near(ops.simam_epilogue(x.clone(), 0.01, factor, terms, ceiling), expected, dtype)
        assert_near(ops.simam_epilogue(x, 0.01, factor, terms, ceiling), expected, dtype)


@pytest.mark.parametrize('key', ATTENTION)
def test_layers(key: str) -> None:
    """Every attention's epilogue is its forward, the addition and the activation."""
    row = ATTENTION[key]
    layer: Any = row.layer(32, **row.defaults, dtype=torch.float64).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, base = torch.randn(2, 2, 32, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        plain, expected = layer(x), (layer(x) + base).relu()
        torch.testing.assert_close(layer.epilogue(x.clone(), [], None), plain)
        torch.testing.assert_close(layer.epilogue(x.clone(), [base], math.inf), expected)


def test_it_overwrites_only_where_no_gradient_is_wanted() -> None:
    x, base = torch.randn(2, 1, 8, 6, 6)
    before = x.clone()
    y = ops.epilogue(x.requires_grad_(), None, [base], math.inf)
    y.sum().backward()
    assert torch.equal(x, before) and torch.equal(x.grad, (x + base > 0).float())
    with torch.no_grad():
        assert ops.epilogue(x, None, [base], math.inf).data_ptr() == x.data_ptr() and not torch.equal(x, before)


def test_recorded_operations_are_the_reference() -> None:
    """They overwrite nothing, and ReLU keeps its name, which engines know."""
    x, base = torch.randn(2, 2, 3, 5, 5)
    before = x.clone()
    for at, activation in enumerate(([], ['relu'], ['clamp'])):
        for layer in (
            lambda x, base: ops.epilogue(x, None, [base], CEILINGS[at]),  # noqa: B023
            lambda x, base: ops.simam_epilogue(x, 0.1, None, [base], CEILINGS[at]),  # noqa: B023
        ):
            graph = torch.fx.symbolic_trace(layer)
            steps = [str(getattr(node.target, '__name__', node.target)) for node in graph.graph.nodes]
            assert [step for step in steps if step in ('relu', 'clamp')] == activation
            with torch.no_grad():
                torch.testing.assert_close(graph(x, base), layer(x.clone(), base))
            assert torch.equal(x, before)


def test_a_larger_term() -> None:
    """x takes the shape of what it is added to, as in any addition."""
    x, base = torch.randn(2, 4, 1, 1), torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(ops.epilogue(x, None, [base], None), x + base)
