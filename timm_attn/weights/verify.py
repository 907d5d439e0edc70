"""A checkpoint file is looked at before anything of it is loaded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from timm_attn.weights.manifest import Checkpoint


def verified_path(checkpoint: Checkpoint) -> Path:
    """The checkpoint's file, after its size and its sha256 were found to be those of the manifest.

    Raises:
        RuntimeError: the file is missing, or its bytes are not the published ones.
    """
    path = checkpoint.path
    if not path.is_file():
        raise RuntimeError(f'The weights of {checkpoint.full_name} are missing at {path}: reinstall timm_attn.')
    size = path.stat().st_size
    if size != checkpoint.size:
        raise RuntimeError(
            f'The weights of {checkpoint.full_name} at {path} have {size} bytes instead of {checkpoint.size}: '
            'the file is damaged, reinstall timm_attn.'
        )
    sha256 = file_sha256(path)
    if sha256 != checkpoint.sha256:
        raise RuntimeError(
            f'The weights of {checkpoint.full_name} at {path} have sha256 {sha256[:16]}... instead of '
            f'{checkpoint.sha256[:16]}...: the file is damaged, reinstall timm_attn.'
        )
    return path


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_keys(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The state dict itself, if it has exactly the model's keys (timm loads with strict=False for a new head).

    A model without a classifier, or with another pool, lacks the head's keys: those may be left over.
    """
    cfg: Mapping[str, Any] = model.default_cfg  # type: ignore[assignment]
    wanted = set(model.state_dict())
    missing = sorted(wanted - set(state_dict))
    head = f'{cfg["classifier"]}.'
    left_over = sorted(k for k in set(state_dict) - wanted if not k.startswith(head))
    if missing or left_over:
        raise RuntimeError(f'The checkpoint does not fit the model: missing {missing[:3]}, left over {left_over[:3]}.')
    return state_dict
