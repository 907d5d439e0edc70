"""Two runs never share a folder, and no folder stays locked."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest

from tests.support.commands import ROOT
from tests.support.images import MODEL, short
from timm_attn.training import lock, runner
from timm_attn.training.engine import Engine
from timm_attn.training.lock import FolderInUseError, held
from timm_attn.training.processes import ALONE
from timm_attn.training.runner import train
from timm_attn.training.sweep import sweep

HOLD = """
import sys, time
from pathlib import Path
from timm_attn.training import lock
from timm_attn.training.processes import ALONE
if sys.argv[2] == 'soft':
    lock.FileLock.acquire = lambda self: (_ for _ in ()).throw(OSError(37, 'No locks available'))
with lock.held(Path(sys.argv[1]), ALONE):
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system as those that have no locks."""

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', flock)


def holder(folder: Path, kind: str = 'real') -> subprocess.Popen[str]:
    """Another process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(folder), kind], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == 'held\n'
    return process


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = holder(tmp_path / 'out')
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize('resume', [False, True])
def test_the_second_training_is_refused(
    resume: bool, small: Path, tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    output = tmp_path / 'out'
    words = rf'out is in use by process {other.pid} on {socket.gethostname()}: wait until it ends, or .*--output\.$'
    for _ in range(2):
        with pytest.raises(FolderInUseError, match=words):
            train(short(batch_size=10), MODEL, small, output, resume=resume)
    assert {path.name for path in output.iterdir()} == {lock.LOCK, lock.HOLDER}
    other.send_signal(signal.SIGKILL)  # which leaves nothing locked
    other.wait()
    train(short(batch_size=10, epochs=1), MODEL, small, output, resume=resume)
    assert lock.HOLDER not in {path.name for path in output.iterdir()}


def test_the_second_sweep_is_refused(small: Path, tmp_path: Path, other: subprocess.Popen[str]) -> None:
    pytest.importorskip('matplotlib')
    with pytest.raises(FolderInUseError, match=f'process {other.pid} on'):
        sweep(short(), MODEL, small, tmp_path / 'out', attn_kwarg='e_lambda', values=['1e-4'], holdout=5)


def test_workers_that_outlive_a_killed_run_hold_nothing(tmp_path: Path) -> None:
    """A loader's workers inherit what the run has open."""
    read, write = os.pipe()
    run = os.fork()
    if not run:
        with held(tmp_path, ALONE):
            if not os.fork():
                os.write(write, b'x')
                time.sleep(20)
                os._exit(0)
            time.sleep(20)
        os._exit(0)
    os.read(read, 1)
    os.kill(run, signal.SIGKILL)
    os.waitpid(run, 0)
    with held(tmp_path, ALONE):
        pass


@pytest.mark.usefixtures('without_locks')
def test_a_file_stands_for_a_lock_where_there_are_none(tmp_path: Path) -> None:
    output = tmp_path / 'out'
    process = holder(output, 'soft')
    with pytest.raises(
        FolderInUseError,
        match=rf'in use by process {process.pid} on .*\. If that process is gone, delete .*out/{lock.SOFT_LOCK}\.$',
    ):
        with held(output, ALONE):
            pass
    process.kill()
    process.communicate()
    (output / lock.SOFT_LOCK).unlink()  # as the message says
    with held(output, ALONE):
        assert (output / lock.SOFT_LOCK).exists()
    assert not (output / lock.SOFT_LOCK).exists()


@pytest.mark.usefixtures('without_locks')
def test_a_lock_of_another_machine_is_kept(tmp_path: Path) -> None:
    with filelock.SoftFileLock(tmp_path / lock.SOFT_LOCK):
        (tmp_path / lock.SOFT_LOCK).write_text('1\nelsewhere\n')
        (tmp_path / lock.HOLDER).write_text('process 1 on elsewhere')
        with pytest.raises(FolderInUseError, match='process 1 on elsewhere.* If that process is gone, delete'):
            with held(tmp_path, ALONE):
                pass
        assert (tmp_path / lock.SOFT_LOCK).exists()


def test_threads_of_one_process(tmp_path: Path) -> None:
    entered, errors = threading.Barrier(4, timeout=30), []

    def work() -> None:
        entered.wait()
        try:
            with held(tmp_path, ALONE):
                time.sleep(1)
        except FolderInUseError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('x')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'out'):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            with held(folder, ALONE):
                pass
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / lock.LOCK).mkdir()
    with pytest.raises(RuntimeError, match='out cannot be written to: Is a directory'):
        with held(tmp_path / 'out', ALONE):
            pass


@pytest.mark.parametrize('exists', [False, True])
def test_a_folder_is_left_as_it_was_found(exists: bool, tmp_path: Path) -> None:
    output = tmp_path / 'a' / 'out'
    if exists:
        output.mkdir(parents=True)
    with pytest.raises(KeyError):
        with held(output, ALONE):
            raise KeyError
    assert not any(output.iterdir()) if exists else not output.parent.exists()
    with held(output, ALONE):
        (output / 'x').touch()
    assert (output / 'x').exists()


def test_nothing_is_restored_without_being_asked(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a checkpoint that somebody else puts there meanwhile."""
    recipe = short(epochs=1, batch_size=10)
    train(recipe, MODEL, small, tmp_path / 'first')
    prepare, epoch, trained = runner._prepare, Engine.epoch, []

    def prepared(*args: Any) -> Any:
        shutil.copy(tmp_path / 'first' / 'last.pth.tar', tmp_path / 'second')
        return prepare(*args)

    def counted(self: Any, number: int) -> Any:
        trained.append(number)
        return epoch(self, number)

    monkeypatch.setattr(runner, '_prepare', prepared)
    monkeypatch.setattr(Engine, 'epoch', counted)
    train(recipe, MODEL, small, tmp_path / 'second')
    assert trained == [0]
