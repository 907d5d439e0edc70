"""Checkpoints of others in the local store: fetched or given, read safely, converted, checked and noted."""

import datetime
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from torch import Tensor

from timm_attn.files import replacing
from timm_attn.weights.convert import convert_state_dict, converted, short
from timm_attn.weights.drive import fetch_drive, files_at, on_drive
from timm_attn.weights.fetch import download, permit_fetch
from timm_attn.weights.manifest import Checkpoint, checkpoints, find_full_name
from timm_attn.weights.read import read_checkpoint, unpacked
from timm_attn.weights.store import (
    SCRATCH,
    cannot_write,
    file_digest,
    imported,
    record_path,
    store_dir,
    sweep_store,
)


def import_checkpoint(full_name: str, file: Path | None = None, folder: str | Path | None = None) -> Path:
    """Converts somebody's file of a mirrored or upstream checkpoint into the local store; the path of what was written.

    Args:
        full_name: `{name}.{tag}`, or a name whose default checkpoint is meant.
        file: the downloaded file; fetched where it is None.
        folder: of the store, see store_dir.

    Raises:
        ValueError: no such checkpoint of that name, or a file that is not it; nothing is written then.
        RuntimeError: the file cannot be fetched.
        OSError: the file cannot be read, or the store cannot be written.
    """
    checkpoint = find_full_name(full_name)
    if not checkpoint.is_converted:
        can = [c for c in checkpoints() if c.is_converted]
        names = ', '.join(c.full_name for c in [c for c in can if c.name == checkpoint.name] or can)
        raise ValueError(f'{checkpoint.full_name} is {checkpoint.kind}, nothing to import: choose from {names}.')
    if file is None:
        return fetch_and_convert(checkpoint, folder, 'are asked for')
    if not file.is_file():
        raise FileNotFoundError(f'There is no file {file}.')
    with tempfile.TemporaryDirectory() as scratch:
        return _convert(checkpoint, file, file.name, Path(scratch), folder)


def fetch_and_convert(checkpoint: Checkpoint, folder: str | Path | None, why: str) -> Path:
    """Fetches the file of a mirrored or upstream checkpoint and converts it; `why` it is needed goes into messages.

    Raises:
        RuntimeError: it may not or cannot be fetched, or what is there is not the checkpoint; nothing is kept then.
        OSError: the store cannot be written.
    """
    permit_fetch(checkpoint, why)
    with _scratch(checkpoint, folder) as scratch:
        fetch = _from_drive if on_drive(checkpoint.origin['url']) else _from_address
        return fetch(checkpoint, scratch, folder)


def _from_address(checkpoint: Checkpoint, scratch: Path, folder: str | Path | None) -> Path:
    url = checkpoint.origin['url']
    file = _place(scratch, url)
    download(url, file, checkpoint.full_name, limit=most_bytes(checkpoint))
    try:
        return _convert(checkpoint, file, url, scratch, folder)
    except ValueError as error:
        raise RuntimeError(f'{checkpoint.full_name} from {url} was not kept: {_said(error, scratch)}.') from error


def _from_drive(checkpoint: Checkpoint, scratch: Path, folder: str | Path | None) -> Path:
    """The first file at the checkpoint's place on Google Drive that is the one of the last time, or converts."""
    title, before = checkpoint.full_name, imported(checkpoint, folder)
    refused = []
    try:
        for name, address in files_at(checkpoint.origin['url'], title):
            file = _place(scratch, name)
            try:
                fetch_drive(address, file, title, most_bytes(checkpoint))
                return _convert(checkpoint, file, address, scratch, folder, before)
            except (RuntimeError, ValueError) as error:
                refused.append(f'{short(name)}: {_said(error, scratch)}')
            file.unlink(missing_ok=True)
    except RuntimeError as error:  # the folder is not listed
        refused.append(_said(error, scratch))
    why = '; '.join(refused) or 'the folder is empty'
    raise RuntimeError(f'Google Drive did not give {title} ({why}): {checkpoint.by_hand}.')


def _place(scratch: Path, name: str) -> Path:
    """Where a download goes; only the ending .safetensors of its own name counts, for the reader."""
    return scratch / ('download.safetensors' if name.lower().endswith('.safetensors') else 'download')


def _said(error: Exception, scratch: Path) -> str:
    """The message of an error as a part of a sentence, without the name of a temporary folder."""
    return str(error).replace(f'{scratch}/', '').rstrip('.')


@contextmanager
def _scratch(checkpoint: Checkpoint, folder: str | Path | None) -> Iterator[Path]:
    """A folder in the store, on the disk that the user chose for large files."""
    place = store_dir(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=SCRATCH, dir=place)
    except OSError as error:
        raise cannot_write(checkpoint.full_name, place, error) from error
    with scratch as path:
        yield Path(path)


def most_bytes(checkpoint: Checkpoint) -> int:
    """The most bytes that the file of a converted checkpoint may have, packed or not."""
    return int(checkpoint.row.bytes_per_parameter * checkpoint.num_params)


def _convert(
    checkpoint: Checkpoint,
    file: Path,
    source: str,
    scratch: Path,
    folder: str | Path | None,
    before: Mapping[str, Any] | None = None,
) -> Path:
    """Converts a file after its digest was found to be the record's, or that of the note `before`, and keeps it."""
    with unpacked(file, most_bytes(checkpoint), scratch) as inner:
        sha1, sha256 = checkpoint.origin.get('sha1'), file_digest(inner)
        if sha1 and (found := file_digest(inner, 'sha1')) != sha1:
            raise ValueError(f'{file} is not {checkpoint.full_name}: its SHA-1 is {found} instead of {sha1}.')
        if before and sha256 != before['source_sha256']:
            raise ValueError(
                f'{file} has changed since {before["imported"]}: its sha256 is {sha256[:16]}... instead of '
                f'{before["source_sha256"][:16]}...; `timm-attn weights remove {checkpoint.full_name}` accepts it'
            )
        tensors = _checked(checkpoint, read_checkpoint(inner), file)
        note = {'source': source, 'source_size': inner.stat().st_size, 'source_sha256': sha256}
    note['imported'] = datetime.date.today().isoformat()
    return _keep(checkpoint, safetensors.torch.save(tensors, metadata={'format': 'pt'}), note, folder)


def _checked(checkpoint: Checkpoint, state_dict: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The converted tensors, after they were loaded strictly into the model they are for."""
    if 'sha1' in checkpoint.origin:  # known bytes: no warning of what keys do not tell
        ours = converted(state_dict, checkpoint.name, checkpoint.model_args)
    else:
        ours = convert_state_dict(state_dict, checkpoint.name, **checkpoint.model_args)
    classes = checkpoint.cfg['num_classes']
    model = timm.create_model(checkpoint.name, num_classes=classes, **checkpoint.model_args)
    try:
        model.load_state_dict(ours, strict=True)
    except RuntimeError as error:
        raise ValueError(f'{file} does not fit {checkpoint.full_name}: {" ".join(str(error).split())}') from error
    num_params = sum(p.numel() for p in model.parameters())
    if num_params != checkpoint.num_params:
        raise ValueError(
            f'{file} has {num_params:,} parameters, but {checkpoint.full_name} has {checkpoint.num_params:,}.'
        )
    return {key: value.contiguous() for key, value in model.state_dict().items()}


def _keep(checkpoint: Checkpoint, content: bytes, note: Mapping[str, Any], folder: str | Path | None) -> Path:
    """Writes the file, then its note: without the note the file does not count."""
    sha256 = hashlib.sha256(content).hexdigest()
    record = record_path(checkpoint, folder)
    path = record.with_name(f'{checkpoint.full_name}-{sha256[:16]}.safetensors')
    row = json.dumps({'size': len(content), 'sha256': sha256, **note}, indent=1).encode()
    complete = False
    while not complete:  # until no other process removed the file before the note was there
        try:
            for target, written in ((path, content), (record, row)):
                with replacing(target) as out:
                    out.write(written)
        except OSError as error:
            raise cannot_write(checkpoint.full_name, path.parent, error) from error
        complete = path.exists()
    sweep_store(checkpoint, folder)
    return path
