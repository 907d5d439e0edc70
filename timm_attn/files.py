"""How every file of this package is written: whole, or not at all."""

import csv
import glob
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_STALE_S = 3600  # a partial file this old was left by a killed process


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file opened for writing, which replaces `target` when the block ends; an error deletes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, f'.{glob.escape(target.name)}.*.partial')
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


def sweep(folder: Path, *patterns: str, kept: Path | None = None) -> None:
    """Deletes what matches a pattern in a folder and nobody has written to for an hour: files, and folders of them."""
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        with suppress(OSError):  # another process deleted it first, or it is another user's
            written = max(part.lstat().st_mtime for part in (path, *path.rglob('*')))
            if path == kept or time.time() - written <= _STALE_S:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def check_writable(target: Path) -> None:
    """Creates the folder of a file that will be written later, and tests that it can be written to.

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
    """Writes a file atomically: at any moment it is the old one or the complete new one.

    Raises:
        RuntimeError: it cannot be written; the old one is still there.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        kept = 'the last one is kept' if path.exists() else 'there is none yet'
        raise RuntimeError(f'{path} ({len(content):,} bytes) cannot be written: {error.strerror}; {kept}.') from error


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows under the columns, by default the keys of the first, one line each."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, fieldnames=list(rows[0] if columns is None else columns), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_text(content: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(content, indent=2) + '\n'


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes a table; names of files that are not UTF-8 keep their bytes."""
    write_whole(path, csv_text(rows, columns).encode('utf-8', 'surrogateescape'))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    write_whole(path, json_text(content).encode())
