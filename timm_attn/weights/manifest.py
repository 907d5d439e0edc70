"""weights_manifest.json: the one record of every checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = 'weights_manifest.json'


@dataclass(frozen=True)
class Checkpoint:
    """A row of the manifest.

    Args:
        name, tag: `timm.create_model('{name}.{tag}', pretrained=True)`.
        kind: 'bundled', a file of the package.
        file: its name in weights/bundled.
        size, sha256: of that file, in bytes and hex.
        num_params: trainable parameters.
        cfg: fields of timm's pretrained cfg (input_size, mean, std, num_classes, label_names, ...).
        license: SPDX.
        metrics: rows of dataset, split, images, top1 (%), command, date.
        training: recipe, command, seed, epochs, date, hardware.
    """

    name: str
    tag: str
    kind: str
    file: str
    size: int
    sha256: str
    num_params: int
    cfg: Mapping[str, Any]
    license: str
    metrics: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f'{self.name}.{self.tag}'

    @property
    def path(self) -> Path:
        return PACKAGE / 'weights' / 'bundled' / self.file


def manifest_path() -> Path:
    """In the wheel beside the package's modules, in a checkout at the root."""
    for folder in (PACKAGE, PACKAGE.parent):
        if (folder / MANIFEST).is_file():
            return folder / MANIFEST
    raise RuntimeError(f'{MANIFEST} is neither in {PACKAGE} nor in {PACKAGE.parent}: reinstall timm_attn.')


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """Every record, in the file's order: the first of a name is its default.

    Raises:
        RuntimeError: the manifest is missing or damaged.
    """
    path = manifest_path()
    try:
        return tuple(_checkpoint(row) for row in json.loads(path.read_text(encoding='utf-8'))['checkpoints'])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(f'{path} is damaged ({error!r}): reinstall timm_attn.') from error


def _checkpoint(row: dict[str, Any]) -> Checkpoint:
    cfg = {k: tuple(v) if isinstance(v, list) else v for k, v in row['cfg'].items()}  # as in timm's own cfgs
    return Checkpoint(**{**row, 'cfg': cfg, 'metrics': tuple(row['metrics'])})


def checkpoints_of(name: str) -> tuple[Checkpoint, ...]:
    """The records of a model name."""
    return tuple(c for c in checkpoints() if c.name == name)


def find_checkpoint(name: str, tag: str | None = None) -> Checkpoint:
    """The record of a name and tag, by default the first of the name.

    Raises:
        RuntimeError: there is none; the message says which there are.
    """
    of_name = checkpoints_of(name)
    for checkpoint in of_name:
        if tag in (None, checkpoint.tag):
            return checkpoint
    tags = ', '.join(c.tag for c in of_name) or 'none'
    if tag is not None:
        raise RuntimeError(f'Invalid pretrained tag ({tag}) for {name}: its tags are {tags}.')
    have = ', '.join(c.full_name for c in checkpoints())
    raise RuntimeError(
        f'No pretrained weights exist for {name}: use pretrained=False for random init, or a model that has weights '
        f'({have}).'
    )
