"""The folder of files that were fetched, or converted from those of others."""

import datetime
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from timm_attn.files import sweep
from timm_attn.weights.manifest import PATTERNS, Checkpoint, bundled_dir

_NOTE_BYTES = 1 << 16  # a note has some 300
SCRATCH = '.fetch-'  # how the names of folders begin in which files are unpacked


class Stored(NamedTuple):
    """Where the file of a checkpoint is, or will be, and the bytes and the sha256 that it must have."""

    path: Path
    size: int
    sha256: str


def store_dir(folder: str | Path | None = None) -> Path:
    """The folder asked for (timm's cache_dir), $TIMM_ATTN_HOME, or timm_attn in the user's cache folder."""
    chosen = folder or os.environ.get('TIMM_ATTN_HOME')
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'timm_attn'
    except RuntimeError as error:  # there is no such user
        what = f'folder {chosen}' if chosen else 'home folder'
        raise RuntimeError(f'There is no {what} for the weights: set TIMM_ATTN_HOME to one that exists.') from error


def stored(checkpoint: Checkpoint, folder: str | Path | None = None) -> Stored | None:
    """The file of a checkpoint; None for one that is converted, and was not yet.

    The name has a part of the sha256, so that no two files ever share one.

    Raises:
        RuntimeError: the note of an import is damaged.
    """
    known = imported(checkpoint, folder) if checkpoint.sha256 is None else vars(checkpoint)
    if not known:
        return None
    name = f'{checkpoint.full_name}-{known["sha256"][:16]}.safetensors'
    path = bundled_dir() / checkpoint.file if checkpoint.file else store_dir(folder) / name
    return Stored(path, known['size'], known['sha256'])


def stored_path(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path | None:
    """Where that file is, or will be."""
    file = stored(checkpoint, folder)
    return file.path if file is not None else None


def stored_files(checkpoint: Checkpoint, folder: str | Path | None = None) -> list[Path]:
    """Every file of a checkpoint's name in the store, also those of earlier imports and of other releases."""
    return sorted(store_dir(folder).glob(f'{checkpoint.full_name}-*.safetensors'))


def sweep_store(checkpoint: Checkpoint, folder: str | Path | None = None) -> None:
    """Deletes partial files of killed processes, and the files of earlier imports of the checkpoint.

    Only files that are an hour old: another process may be about to write the note of a newer one.
    """
    earlier = (f'{checkpoint.full_name}-*.safetensors',) if checkpoint.is_converted else ()
    partial = ('.*.safetensors.*.partial', '.*.json.*.partial', f'{SCRATCH}*')
    sweep(store_dir(folder), *partial, *earlier, kept=stored_path(checkpoint, folder))


def cannot_write(title: str, folder: Path, error: OSError) -> OSError:
    """The system's error with the file, the folder and the remedy."""
    what = f'{title} cannot be written to {folder} ({error.strerror})'
    return OSError(error.errno, f'{what}: make room, or choose another folder by TIMM_ATTN_HOME')


def record_path(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path:
    """The note of a converted checkpoint: the size and sha256 of what was written, and of its source."""
    return store_dir(folder) / f'{checkpoint.full_name}.json'


def imported(checkpoint: Checkpoint, folder: str | Path | None = None) -> dict[str, Any]:
    """The note of a converted checkpoint; empty where there is none.

    Raises:
        RuntimeError: the note is damaged.
    """
    path = record_path(checkpoint, folder)
    try:
        with path.open('rb') as file:
            content = file.read(_NOTE_BYTES + 1)
        if len(content) > _NOTE_BYTES:
            raise ValueError(f'more than {_NOTE_BYTES:,} bytes')
        note: dict[str, Any] = json.loads(content)
        for key in ('sha256', 'source_sha256'):
            if not re.fullmatch(PATTERNS['sha256'], note[key]):
                raise ValueError(f'{key} {note[key]!r}')
        datetime.date.fromisoformat(note['imported'])
        if type(note['size']) is not int or note['size'] < 1:
            raise ValueError(f'size {note["size"]!r}')
        return note
    except FileNotFoundError:
        return {}
    except (NotADirectoryError, PermissionError) as error:
        what = f'{path} cannot be read ({error.strerror})'
        raise OSError(error.errno, f'{what}: choose another folder by TIMM_ATTN_HOME') from error
    except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError) as error:
        raise RuntimeError(
            f'{path} is damaged ({error!r}): `timm-attn weights remove {checkpoint.full_name}` removes it.'
        ) from error


def file_digest(path: Path, name: str = 'sha256') -> str:
    """The digest of a file, in hex, read in pieces."""
    digest = hashlib.new(name)
    with path.open('rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
