"""The processes of one training: one, or those that torchrun started, each with its device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import init_distributed_device


@dataclass(frozen=True)
class Processes:
    """This process among all: its device, its rank, and how many there are."""

    device: torch.device = torch.device('cpu')
    rank: int = 0
    count: int = 1

    @property
    def primary(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    @contextmanager
    def first_on_node(self) -> Iterator[None]:
        """A block that the first process of each node runs alone; the others run it after that."""
        first = os.environ.get('LOCAL_RANK', '0') == '0'
        if not first:
            self.gather(None)
        try:
            yield
        finally:
            if first:
                self.gather(None)


ALONE = Processes()
_groups: list[Processes] = []  # none or one


@contextmanager
def joined(device: str | None = None) -> Iterator[Processes]:
    """A block in which this process has a device and, under torchrun, a group (NCCL on GPUs, gloo on CPUs).

    A call within it gives the same: torchrun's processes form one group, once.

    Args:
        device: such as 'cpu' or 'cuda:1'; without one CUDA where there is a GPU.

    Raises:
        RuntimeError: the device is not there.
    """
    if _groups:
        yield _groups[-1]
        return
    has_cuda = torch.cuda.is_available()
    name = device or ('cuda' if has_cuda else 'cpu')
    if name.startswith('cuda') and not has_cuda:
        raise RuntimeError(f'The device {name!r} is not there: torch sees no GPU; choose cpu.')
    found = SimpleNamespace(device=name)
    place = init_distributed_device(found)
    if has_cuda:  # as train.py
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    _groups.append(Processes(place, found.rank, found.world_size))
    try:
        yield _groups[-1]
    finally:
        _groups.clear()
        if found.distributed:
            dist.destroy_process_group()
