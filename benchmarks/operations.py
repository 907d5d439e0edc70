"""Runners of the SimAM operation by each of its paths."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.formula import paper_simam
from benchmarks.measure import Runner
from benchmarks.peak_memory import MIB
from timm_attn import ops
from timm_attn.analysis.cost import saved_bytes
from timm_attn.ops.simam import PATHS
from timm_attn.ops.triton import runs_on_triton

E_LAMBDA = 0.1
OURS, FORMULA, COPY = 'simam', 'formula', 'copy'
# How many maps of the input's size an operation must read or write
MAPS: Mapping[str, int] = {'forward': 2, 'backward': 3, 'training': 5, COPY: 2}
Operation = Callable[[Tensor], Tensor]
Context = Callable[[], AbstractContextManager[Any]]


def simam_runners(
    work: str,
    shape: Sequence[int],
    device: str,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float32,
    copy: bool = False,
) -> dict[str, Runner]:
    """The formula, every path of ops.simam that such a map can take, and the one that ops.simam chooses.

    Args:
        work: 'forward' without gradients, 'backward' alone, or 'training', both of them.
        shape: of the map, (N, C, H, W).
        copy: also a copy of the map by the device.
    """
    torch.manual_seed(0)
    x = torch.randn(*shape, device=device, dtype=dtype).contiguous(memory_format=memory_format)
    runners = {FORMULA: _runner(work, partial(paper_simam, e_lambda=E_LAMBDA), nullcontext, x)}
    simam = partial(ops.simam, e_lambda=E_LAMBDA)
    for path in reversed(PATHS):
        if path == 'triton' and not runs_on_triton(x):
            continue  # Triton's interpreter is too slow to compare
        with ops.use_simam_path(path):
            if ops.simam_path(x) == path:
                runners[path] = _runner(work, simam, partial(ops.use_simam_path, path), x)
    runners[OURS] = _runner(work, simam, nullcontext, x)
    if copy:
        runners[COPY] = Runner(partial(torch.empty_like(x).copy_, x), torch.no_grad, MAPS[COPY] * x.nbytes)
    return runners


def _runner(work: str, operation: Operation, path: Context, x: Tensor) -> Runner:
    @contextmanager
    def around() -> Iterator[None]:
        with path(), torch.set_grad_enabled(work != 'forward'):
            yield

    def memory() -> dict[str, float]:
        with path():
            saved = saved_bytes(operation, x)
        return {'saved_mib': saved / MIB, 'saved_inputs': saved / x.nbytes}

    with around():
        return Runner(_CALLS[work](operation, x), around, MAPS[work] * x.nbytes, memory)


def _forward(operation: Operation, x: Tensor) -> Callable[[], Any]:
    return partial(operation, x)


def _backward(operation: Operation, x: Tensor) -> Callable[[], Any]:
    leaf, grad = x.clone().requires_grad_(), torch.randn_like(x)
    return partial(torch.autograd.grad, operation(leaf), leaf, grad, retain_graph=True)


def _training(operation: Operation, x: Tensor) -> Callable[[], Any]:
    leaf, grad = x.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(operation(leaf), leaf, grad)


_CALLS: Mapping[str, Callable[[Operation, Tensor], Callable[[], Any]]] = {
    'forward': _forward,
    'backward': _backward,
    'training': _training,
}
