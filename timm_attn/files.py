"""How every file of this package is written: whole, or not at all."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_STALE_S = 3600  # a partial file that nobody has written to for so long belongs to a process that was killed


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes `target` when the block ends; after an error nothing of it is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f'.{target.name}.*.partial'):
        with suppress(FileNotFoundError):  # another process was first
            if time.time() - stale.stat().st_mtime > _STALE_S:
                stale.unlink()
    handle, partial = tempfile.mkstemp('.partial', f'.{target.name}.', target.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def check_writable(target: Path) -> None:
    """Makes the folder of a file that a long piece of work will write, and writes to it once.

    Raises:
        OSError: the file could not be written there.
    """
    if target.is_dir():
        raise IsADirectoryError(f'{target} cannot be written: it is a folder.')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise OSError(f'{target} cannot be written: {error.strerror} ({error.filename}).') from error


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes a file that is at any moment either the old one or complete.

    Raises:
        RuntimeError: it cannot be written; the old one is still there.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        kept = 'the last one is kept' if path.exists() else 'there is none yet'
        raise RuntimeError(f'{path} ({len(content):,} bytes) cannot be written: {error.strerror}; {kept}.') from error
