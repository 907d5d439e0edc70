"""One thread, one seed a test, and no network."""

import os
import socket
from collections.abc import Iterator
from typing import Any

os.environ['HF_HUB_OFFLINE'] = '1'

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():  # Triton reads it when it is first imported, which torchvision does
    os.environ.setdefault('TRITON_INTERPRET', '1')


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any connection but to this machine fails the test that opens it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ('127.0.0.1', '::1', 'localhost'):
            pytest.fail(f'the test opened a connection to {address}')
        connect(self, address)

    monkeypatch.setattr(socket.socket, 'connect', guarded)
    yield
