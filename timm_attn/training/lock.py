"""One run at a time in a folder."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from timm_attn.files import write_whole
from timm_attn.training.processes import Processes

LOCK, SOFT_LOCK, HOLDER = '.lock', '.soft-lock', '.holder'
# The errors of file systems without locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class FolderInUseError(RuntimeError):
    """A folder in which another process works."""


@contextmanager
def held(folder: Path, processes: Processes) -> Iterator[None]:
    """A block in which no other training works in a folder; a folder made for it is removed if it stays empty.

    The first process of a training takes the lock, and every process must call this. The kernel releases it when the
    holder dies. On a file system without locks a marker file is used, which a killed holder may leave behind.

    Raises:
        FolderInUseError: another process holds it.
        OSError: the folder cannot be made.
        RuntimeError: it cannot be written to.
    """
    lock, failure = None, None
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    if processes.primary:
        try:
            lock = _acquired(folder)
        except (OSError, RuntimeError) as error:
            failure = error
    failure = processes.gather(failure)[0]  # all must raise, or the others would wait for the first
    if failure is not None:
        raise failure
    try:
        yield
    finally:
        if lock is not None:
            _release(folder, lock, made)


def _acquired(folder: Path) -> BaseFileLock:
    """The lock of a folder, with a note of who holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = _locked(folder)
    except Timeout as error:
        marker = folder / SOFT_LOCK
        gone = f' If that process is gone, delete {marker}.' if Path(error.lock_file) == marker else ''
        raise FolderInUseError(
            f'{folder} is in use by {_holder(folder)}: wait until it ends, or choose another --output.{gone}'
        ) from error
    except OSError as error:
        raise RuntimeError(f'{folder} cannot be written to: {error.strerror}.') from error
    try:
        write_whole(folder / HOLDER, f'process {os.getpid()} on {socket.gethostname()}'.encode())
    except BaseException:
        lock.release()
        raise
    return lock


def _locked(folder: Path) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(folder / SOFT_LOCK, timeout=0)
        lock.acquire()
    return lock


def _holder(folder: Path) -> str:
    with suppress(FileNotFoundError):
        return (folder / HOLDER).read_text(errors='replace')
    return 'another process'  # its note is not written yet, or deleted already


def _release(folder: Path, lock: BaseFileLock, made: list[Path]) -> None:
    (folder / HOLDER).unlink(missing_ok=True)
    unused = folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK, SOFT_LOCK}
    if unused:
        (folder / LOCK).unlink(missing_ok=True)  # only the holder may; filelock notices that its open file was deleted
    lock.release()
    if unused:
        with suppress(OSError):  # it is not empty
            for place in made:
                place.rmdir()
