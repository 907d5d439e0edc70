"""Checks a checkpoint file before anything of it is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from timm_attn.weights.convert import fault_of
from timm_attn.weights.fetch import fetch_published, fetchable
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import Stored, file_digest, stored

# What to do about a damaged or missing file, by kind.
_REMEDIES = {
    'bundled': 'reinstall timm_attn',
    'upstream': 'import it again with `timm-attn weights import {}`',
}


def verified_path(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path:
    """The checkpoint's file, with its size and sha256 verified; fetched where it is published and absent or damaged.

    Raises:
        RuntimeError: the file is missing, its bytes are not the published ones, or it cannot be fetched.
        OSError: it cannot be read or written.
    """
    file = stored(checkpoint, folder)
    if file is None:
        raise RuntimeError(_how_to_import(checkpoint))
    found = damage(file)
    if found and checkpoint.kind == 'published':
        fetch_published(checkpoint, file.path, found)  # hashes the bytes while they arrive
    elif found:
        remedy = _REMEDIES[checkpoint.kind].format(checkpoint.full_name)
        raise RuntimeError(f'The weights of {checkpoint.full_name} {found}: {remedy}.')
    return file.path


def damage(file: Stored) -> str:
    """What is wrong with a file, in words; '' if its size and sha256 are right."""
    path = file.path
    if not path.is_file():
        return f'are missing at {path}'
    size = path.stat().st_size
    if size != file.size:
        return f'at {path} have {size} bytes instead of {file.size}: the file is damaged'
    sha256 = file_digest(path)
    if sha256 != file.sha256:
        return f'at {path} have sha256 {sha256[:16]}... instead of {file.sha256[:16]}...: the file is damaged'
    return ''


def _how_to_import(checkpoint: Checkpoint) -> str:
    """Origin, accuracy and licence of an upstream checkpoint, and the command that imports it."""
    claims = [f'claimed top-1 on {m["dataset"]} {m["top1"]} %' for m in checkpoint.metrics]
    command = f'timm-attn weights import {checkpoint.full_name}'
    page = checkpoint.origin['sources'][0]['url']
    by_hand = f'download the file in a browser from {page}, then run `{command} FILE` once.'
    said = '; '.join(
        [f'by {checkpoint.origin["repository"]}', *claims, f'licence: {checkpoint.license or "none named"}']
    )
    return f'The weights of {checkpoint.full_name} ({said}) are not redistributed here: ' + (
        f'run `{command}` once, which fetches them.' if fetchable(checkpoint) else by_hand
    )


def check_weights(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The state dict itself, checked to have exactly the model's keys and kinds of values.

    timm loads with strict=False where the head is new, which would ignore missing keys.

    A model without a classifier, or with another pool, lacks the head's keys: those may be left over.
    """
    cfg: Mapping[str, Any] = model.default_cfg  # type: ignore[assignment]
    wanted = set(model.state_dict())
    missing = sorted(wanted - set(state_dict))
    head = f'{cfg["classifier"]}.'
    left_over = sorted(k for k in set(state_dict) - wanted if not k.startswith(head))
    if missing or left_over:
        raise RuntimeError(f'The checkpoint does not fit the model: missing {missing[:3]}, left over {left_over[:3]}.')
    rows, classes = state_dict.get(f'{head}weight'), cfg.get('num_classes')
    if rows is not None and classes and len(rows) != classes:
        raise RuntimeError(f'The checkpoint does not fit its description: {len(rows)} classes instead of {classes}.')
    for key, target in model.state_dict().items():
        if fault := fault_of(key, state_dict[key], target):
            raise RuntimeError(f'The checkpoint does not fit the model: {key} {fault}.')
    return state_dict
