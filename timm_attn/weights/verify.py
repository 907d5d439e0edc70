"""The file of a checkpoint, checked before anything of it is loaded, and its values when it is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from timm_attn.weights.convert import convert_state_dict, fault_of
from timm_attn.weights.hub import fetch_of_timm, fetch_published
from timm_attn.weights.importing import fetch_and_convert
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import Stored, file_digest, stored

# What gets the file of a checkpoint that is missing or damaged, by kind; others cannot be fetched.
_FETCH: Mapping[str, Callable[[Checkpoint, str | Path | None, str], Path]] = {
    'published': fetch_published,
    'mirrored': fetch_and_convert,
    'upstream': fetch_and_convert,
    'timm': fetch_of_timm,
}


def verified_path(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path:
    """The checkpoint's file, with its size and sha256 verified; fetched where it is absent or damaged.

    timm's own files, in timm's keys, are in the Hub's cache: their size is that which the Hub says.

    Raises:
        RuntimeError: the file is missing, its bytes are not the published ones, or it cannot be fetched.
        OSError: it cannot be read or written.
    """
    file = stored(checkpoint, folder)
    why = damage(file) if file is not None else 'are not here'
    if file is not None and not why:
        return file.path
    if checkpoint.kind not in _FETCH:
        raise RuntimeError(f'The weights of {checkpoint.full_name} {why}: {checkpoint.by_hand}.')
    return _FETCH[checkpoint.kind](checkpoint, folder, why)


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


Filter = Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]]


def filter_of(checkpoint: Checkpoint) -> Filter:
    """What timm calls with the file's state dict and the model before it loads one into the other."""

    def converted(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
        return check_weights(convert_state_dict(state_dict, checkpoint.name, **checkpoint.model_args), model)

    return converted if checkpoint.row.in_other_keys else check_weights


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
        hint = ' timm_attn.convert_state_dict takes files of other code.' if missing and left_over else ''
        raise RuntimeError(
            f'The checkpoint does not fit the model: missing {missing[:3]}, left over {left_over[:3]}.{hint}'
        )
    rows, classes = state_dict.get(f'{head}weight'), cfg.get('num_classes')
    if rows is not None and classes and len(rows) != classes:
        raise RuntimeError(f'The checkpoint does not fit its description: {len(rows)} classes instead of {classes}.')
    for key, target in model.state_dict().items():
        if fault := fault_of(key, state_dict[key], target):
            raise RuntimeError(f'The checkpoint does not fit the model: {key} {fault}.')
    return state_dict
