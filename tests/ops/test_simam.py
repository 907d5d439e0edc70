"""The paths of ops.simam against its reference: values, gradients, layouts, what is saved, and when which is taken."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from tests.support.simam_paths import FORMATS, KERNELS, NO_TRITON, ROWS, TOLERANCES, Row, leaf, relative
from timm_attn import ops


@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('row', ROWS, ids=str, indirect=True)
def test_each_path_is_the_reference(row: Row, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    for shape in row.shapes:
        x = leaf(shape, dtype, memory_format, row.device)
        exact = x.detach().double().requires_grad_()
        assert ops.simam_path(x) == row.path
        y, expected = ops.simam(x, 0.01), ops.simam_reference(exact, 0.01)
        assert y.dtype == dtype and (y.is_contiguous(memory_format=memory_format) or y.numel() == 0)
        assert relative(y, expected) <= TOLERANCES[dtype], shape
        grad = torch.randn(shape, dtype=torch.float64).to(row.device, dtype)  # contiguous, whatever x is
        y.backward(grad)
        expected.backward(grad.double())
        assert x.grad.dtype == dtype and relative(x.grad, exact.grad) <= 2 * TOLERANCES[dtype], shape
        with torch.no_grad():
            torch.testing.assert_close(ops.simam(x, 0.01), y, rtol=0, atol=0)


@pytest.mark.parametrize('row', ROWS, ids=str, indirect=True)
def test_means_far_from_zero_cancel_nothing(row: Row) -> None:
    """Of 1000 +- 1 in float32, E[x^2] - E[x]^2 has one digit left."""
    for memory_format in FORMATS:
        x = (1000 + torch.randn(2, 9, 9, 15)).to(row.device).contiguous(memory_format=memory_format)
        weights = ops.simam(x, 1e-4).double() / x.double()
        torch.testing.assert_close(weights, ops.simam_weights(x.double(), 1e-4), rtol=1e-4, atol=0)


@pytest.mark.parametrize('row', ROWS, ids=str, indirect=True)
def test_gradients_and_their_gradients(row: Row) -> None:
    fast = row.path == 'triton'  # one projection instead of every element: without a GPU an interpreter runs it
    for memory_format in FORMATS:
        x = leaf((2, 3, 4, 5), torch.float64, memory_format, row.device)
        assert torch.autograd.gradcheck(ops.simam, (x, 0.1), fast_mode=fast)
        assert torch.autograd.gradgradcheck(ops.simam, (x, 0.1), fast_mode=fast)


@pytest.mark.parametrize('row', ROWS, ids=str, indirect=True)
def test_gradients_of_any_layout(row: Row) -> None:
    """sum() hands back one number for the whole map."""
    x = leaf((2, 3, 4, 5), torch.float64, torch.channels_last, row.device)
    twin = x.detach().clone().requires_grad_()
    ops.simam(x, 0.1).sum().backward()
    ops.simam_reference(twin, 0.1).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


REFERENCE = Row('reference', 'cpu', [])


@pytest.mark.parametrize('row', [*ROWS, REFERENCE], ids=str, indirect=True)
def test_what_is_kept_for_backward(row: Row) -> None:
    """The input and two numbers per channel; four maps by the formula."""
    x, kept = leaf((4, 8, 14, 14), torch.float32, torch.contiguous_format, row.device), {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.simam(x, 0.1)
    maps = 4 if row.path == 'reference' else 1
    assert maps <= sum(kept.values()) / (x.numel() * 4) <= maps + 3 / (14 * 14)


def test_when_which_path_is_taken() -> None:
    x = torch.randn(2, 4, 6, 6)
    assert ops.simam_path(x) == 'blocks' and ops.simam_path(x[:, ::2]) == ops.simam_path(x[:, :, ::2]) == 'reference'
    with ops.use_simam_path('reference'):
        assert ops.simam_path(x) == 'reference'
    assert ops.simam_path(x) == 'blocks'
    with (
        pytest.raises(ValueError, match="one of triton, blocks, reference, but got 'fast'"),
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
                assert torch.autograd.forward_ad.unpack_dual(ops.simam(dual, 0.1)).tangent is not None
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).primal, x)


@NO_TRITON
def test_many_gradients_at_once() -> None:
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    jacobian: Any = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(ops.simam, x, vectorize=True), jacobian(ops.simam, x))


def test_maps_without_pixels_and_what_is_no_map() -> None:
    assert ops.simam(torch.randn(2, 3, 0, 4)).shape == (2, 3, 0, 4)
    with pytest.raises(ValueError, match=r'expected a map of shape \(N, C, H, W\), but got \(3, 4, 4\)'):
        ops.simam(torch.randn(3, 4, 4))


def test_dispatch_modes_get_plain_operations() -> None:
    """Fake tensors, counters and recorders of operations do not see Triton kernels."""
    x = leaf((2, 4, 6, 6), torch.float32, torch.contiguous_format, KERNELS[0].device).detach()
    with ops.use_simam_path('triton'):
        with FakeTensorMode() as mode:
            fake = mode.from_tensor(x)
            assert ops.simam_path(fake) == 'blocks' and ops.simam(fake, 0.1).shape == x.shape
        assert ops.simam_path(fake) == 'blocks'
        with FlopCounterMode(display=False):
            assert ops.simam_path(x) == 'blocks'
        assert ops.simam_path(x) == 'triton'
        graph = make_fx(lambda image: ops.simam(image, 0.1))(x)
        torch.testing.assert_close(graph(x + 1), ops.simam_reference(x + 1, 0.1))
