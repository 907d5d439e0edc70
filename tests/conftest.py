"""One thread, one seed per test, no network, one interpreter; real images and a run on them."""

import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ['HF_HUB_OFFLINE'] = '1'
os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the processes that tests start

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():  # Triton reads it when it is first imported, which torchvision does
    os.environ.setdefault('TRITON_INTERPRET', '1')

from tests.support.images import MODEL, short, write_folders  # noqa: E402
from timm_attn.training.runner import train  # noqa: E402


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


@pytest.fixture(scope='session', autouse=True)
def own_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A script that calls `python` or `torchrun` gets the interpreter that runs the tests, whatever PATH says."""
    folder = tmp_path_factory.mktemp('bin')
    for name, options in {'python': '', 'torchrun': ' -m torch.distributed.run'}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{options} "$@"\n')
        (folder / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PATH', f'{folder}{os.pathsep}{os.environ.get("PATH", os.defpath)}')
        yield


@pytest.fixture(scope='session')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 real images to train and 100 to validate."""
    return write_folders(tmp_path_factory.mktemp('images'))


@pytest.fixture(scope='session')
def finished(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, never interrupted."""
    output = tmp_path_factory.mktemp('runs') / 'finished'
    train(short(), MODEL, folders, output)
    return output


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """20 images of two classes to train, and 20 to validate, for tests that change them."""
    return write_folders(tmp_path / 'small', 20, classes=2)
