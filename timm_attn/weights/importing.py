"""Imports a checkpoint of the authors into the local store: reads it safely, converts, checks and records it."""

import datetime
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from torch import Tensor

from timm_attn.files import replacing
from timm_attn.weights.convert import convert_state_dict
from timm_attn.weights.fetch import fetch_upstream
from timm_attn.weights.manifest import Checkpoint, checkpoints, find_full_name
from timm_attn.weights.read import read_checkpoint, unpacked
from timm_attn.weights.store import cannot_write, file_digest, record_path, sweep_store

_BYTES_PER_PARAMETER = 16  # float32 weights, two moments of an optimizer, and room


def import_checkpoint(full_name: str, file: Path | None = None, folder: str | Path | None = None) -> Path:
    """Converts the authors' file of an upstream checkpoint into the local store; the path of what was written.

    Args:
        full_name: `{name}.{tag}`, or a name whose first checkpoint is meant.
        file: the downloaded file; fetched where it is None and the record has an address that can be.
        folder: of the store, see store_dir.

    Raises:
        ValueError: no upstream checkpoint of that name, or a file that is not it; nothing is written then.
        RuntimeError: the file cannot be fetched.
        OSError: the file cannot be read, or the store cannot be written.
    """
    checkpoint = find_full_name(full_name)
    if checkpoint.kind != 'upstream':
        names = ', '.join(c.full_name for c in checkpoints() if c.kind == 'upstream')
        raise ValueError(f'{checkpoint.full_name} is {checkpoint.kind}, nothing to import: choose from {names}.')
    if file is not None and not file.is_file():
        raise FileNotFoundError(f'There is no file {file}.')
    with tempfile.TemporaryDirectory() as scratch:
        limit = _BYTES_PER_PARAMETER * checkpoint.num_params
        fetched = file or Path(scratch, f'{checkpoint.full_name}.download')
        sha1 = None if file else fetch_upstream(checkpoint, fetched, limit)
        with unpacked(fetched, limit) as source:
            if sha1 and file_digest(source, 'sha1') != sha1:
                raise RuntimeError(f'The file of {checkpoint.full_name} was not kept: its sha1 is not {sha1}.')
            tensors = _checked(checkpoint, read_checkpoint(source), fetched)
            sha256 = file_digest(source)
    note = {'source': fetched.name, 'source_sha256': sha256, 'imported': datetime.date.today().isoformat()}
    return _keep(checkpoint, safetensors.torch.save(tensors, metadata={'format': 'pt'}), note, folder)


def _checked(checkpoint: Checkpoint, state_dict: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The converted tensors, after they were loaded strictly into the model they are for."""
    converted = convert_state_dict(state_dict, checkpoint.name, **checkpoint.model_args)
    classes = checkpoint.cfg['num_classes']
    model = timm.create_model(checkpoint.name, num_classes=classes, **checkpoint.model_args)
    try:
        model.load_state_dict(converted, strict=True)
    except RuntimeError as error:
        raise ValueError(f'{file} does not fit {checkpoint.full_name}: {" ".join(str(error).split())}') from error
    num_params = sum(p.numel() for p in model.parameters())
    if num_params != checkpoint.num_params:
        raise ValueError(
            f'{file} has {num_params:,} parameters, but {checkpoint.full_name} has {checkpoint.num_params:,}.'
        )
    return {key: value.contiguous() for key, value in model.state_dict().items()}


def _keep(checkpoint: Checkpoint, content: bytes, note: Mapping[str, Any], folder: str | Path | None) -> Path:
    """Writes the file, then its note: without the note the file is not imported."""
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
