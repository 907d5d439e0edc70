"""The paths of ops.simam against its reference: values, gradients, layouts, what is saved, and when which is taken."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from timm_attn import ops

SHAPES = [(2, 5, 7, 9), (1, 3, 1, 1), (0, 3, 4, 4), (3, 64, 56, 56), (1, 1, 1, 5), (2, 600, 28, 28)]
FORMATS = [torch.contiguous_format, torch.channels_last]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fresh memory is NaN: what a path forgets to write fails."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def leaf(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    x = (3 * torch.randn(shape, dtype=torch.float64) + 1).to(dtype)
    return x.contiguous(memory_format=memory_format).requires_grad_()


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_blocks_are_the_reference(
    shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = leaf(shape, dtype, memory_format)
    exact = x.detach().double().requires_grad_()
    y, expected = ops.simam(x, 0.01), ops.simam_reference(exact, 0.01)
    assert ops.simam_path(x) == 'blocks'
    assert y.dtype == dtype and (y.is_contiguous(memory_format=memory_format) or y.numel() == 0)
    assert relative(y, expected) <= TOLERANCES[dtype]
    grad = torch.randn(shape, dtype=torch.float64).to(dtype)  # contiguous, whatever x is
    y.backward(grad)
    expected.backward(grad.double())
    assert x.grad.dtype == dtype and relative(x.grad, exact.grad) <= 2 * TOLERANCES[dtype]
    with torch.no_grad():
        torch.testing.assert_close(ops.simam(x, 0.01), y, rtol=0, atol=0)


def test_gradients_and_their_gradients() -> None:
    for memory_format in FORMATS:
        x = leaf((2, 3, 4, 5), torch.float64, memory_format)
        assert torch.autograd.gradcheck(ops.simam, (x, 0.1)) and torch.autograd.gradgradcheck(ops.simam, (x, 0.1))


def test_gradients_of_any_layout() -> None:
    """sum() hands back one number for the whole map."""
    x, twin = (leaf((2, 3, 4, 5), torch.float64, torch.channels_last).detach().requires_grad_() for _ in range(2))
    twin.data.copy_(x.data)
    ops.simam(x, 0.1).sum().backward()
    ops.simam_reference(twin, 0.1).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


@pytest.mark.parametrize('path, maps', [('blocks', 1), ('reference', 4)])
def test_what_is_kept_for_backward(path: str, maps: int) -> None:
    """The input and two numbers a channel."""
    x, kept = leaf((4, 8, 28, 28), torch.float32, torch.contiguous_format), {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with ops.use_simam_path(path), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.simam(x, 0.1)
    assert maps <= sum(kept.values()) / (x.numel() * 4) <= maps + 3 / (28 * 28)


def test_when_which_path_is_taken() -> None:
    x = torch.randn(2, 4, 6, 6)
    assert ops.simam_path(x) == 'blocks' and ops.simam_path(x[:, ::2]) == ops.simam_path(x[:, :, ::2]) == 'reference'
    with ops.use_simam_path('reference'):
        assert ops.simam_path(x) == 'reference'
    assert ops.simam_path(x) == 'blocks'
    with (
        pytest.raises(ValueError, match="one of blocks, reference, but got 'fast'"),
        ops.use_simam_path('fast'),
    ):
        pass
    per_sample = torch.func.vmap(torch.func.grad(lambda image: ops.simam(image[None], 0.1).sum()))(x)
    x.requires_grad_()
    ops.simam(x, 0.1).sum().backward()
    torch.testing.assert_close(per_sample, x.grad)
    graph = torch.fx.symbolic_trace(lambda image: ops.simam(image, 0.1))
    torch.testing.assert_close(graph(x), ops.simam(x, 0.1))


def test_forward_mode() -> None:
    """Tangents go through the reference, also where no gradient is wanted."""
    x, tangent = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        for wanted in (True, False):
            with torch.set_grad_enabled(wanted):
                for y in (ops.simam(dual, 0.1), ops.last_pass(dual, dual.mean((2, 3), keepdim=True), [dual], 1.0)):
                    assert torch.autograd.forward_ad.unpack_dual(y).tangent is not None
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).primal, x)
