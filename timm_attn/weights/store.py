"""The folder of files that were fetched or imported."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from timm_attn.weights.manifest import PATTERNS, Checkpoint, bundled_dir


def store_dir(folder: str | Path | None = None) -> Path:
    """The folder asked for (timm's cache_dir), $TIMM_ATTN_HOME, or timm_attn in the user's cache folder."""
    chosen = folder or os.environ.get('TIMM_ATTN_HOME')
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'timm_attn'


def stored_path(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path | None:
    """Where the file of a checkpoint is, or will be; None for an upstream one that was not imported.

    The name has a part of the sha256, so that no two files ever share one.
    """
    if checkpoint.kind == 'bundled':
        return bundled_dir() / str(checkpoint.file)
    sha256 = checkpoint.sha256 or imported(checkpoint, folder).get('sha256')
    return store_dir(folder) / f'{checkpoint.full_name}-{sha256[:16]}.safetensors' if sha256 else None


def cannot_write(title: str, folder: Path, error: OSError) -> OSError:
    """The system's error, with what was to be written where and what to do about it."""
    what = f'{title} cannot be written to {folder} ({error.strerror})'
    return OSError(error.errno, f'{what}: make room, or choose another folder by TIMM_ATTN_HOME')


def record_path(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path:
    """Where the import of an upstream checkpoint notes what it made of which file."""
    return store_dir(folder) / f'{checkpoint.full_name}.json'


def imported(checkpoint: Checkpoint, folder: str | Path | None = None) -> dict[str, Any]:
    """What the import noted: size, sha256, source; empty where there was none.

    Raises:
        RuntimeError: the note is damaged.
    """
    path = record_path(checkpoint, folder)
    try:
        note = json.loads(path.read_text(encoding='utf-8'))
        if not re.fullmatch(PATTERNS['sha256'], note['sha256']):
            raise ValueError(f'sha256 {note["sha256"]!r}')
        return {**note, 'size': int(note['size'])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(
            f'{path} is damaged ({error!r}): run `timm-attn weights import {checkpoint.full_name}` again.'
        ) from error


def file_digest(path: Path, name: str = 'sha256') -> str:
    """The digest of a file, in hex, read in pieces."""
    digest = hashlib.new(name)
    with path.open('rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
