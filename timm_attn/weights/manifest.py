"""weights_manifest.json: the one record of every checkpoint."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import timm
from timm.models import get_arch_pretrained_cfgs

from timm_attn.weights.convert import siblings
from timm_attn.weights.kinds import KINDS, Kind
from timm_attn.weights.metadata import input_metadata, model_metadata

PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = 'weights_manifest.json'


# Patterns of a record's fields; schema.json has the same and more.
PATTERNS = {
    'name': r'[a-z0-9_]+',
    'tag': r'[a-z0-9_]+',
    'kind': '|'.join(KINDS),
    'file': r'[a-z0-9_]+\.[a-z0-9_]+\.safetensors',
    'sha256': r'[0-9a-f]{64}',
}
HUB_PATTERNS = {
    'id': r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*',
    'revision': r'[0-9a-f]{40}',
    'filename': r'[\w-][\w.-]*\.safetensors',
}
ORIGIN_PATTERNS = {'repository': r'https://\S+', 'url': r'https://\S+', 'sha1': r'[0-9a-f]{40}'}
LICENSE = r'[A-Za-z0-9.+-]+'  # SPDX
# The types of the other fields that this package reads: a type, the fields of an object, or the items of a list.
SHAPES: Mapping[str, Any] = {
    'num_params': int,
    'size': int,
    'cfg': {'num_classes': int},
    'hub': {'id': str, 'filename': str},
    'model_args': {},
    'origin': {'repository': str},
    'metrics': [{'dataset': str, 'top1': (int, float), 'status': str}],
    'training': {},
}
# A name's default is of the first data set here that it has weights of, unless it has bundled ones.
DATA = ('ImageNet-1k', 'CIFAR-10')


@dataclass(frozen=True)
class Checkpoint:
    """A row of the manifest.

    Args:
        name, tag: `timm.create_model('{name}.{tag}', pretrained=True)`.
        kind: of KINDS.
        num_params: trainable parameters.
        cfg: fields of timm's pretrained cfg (input_size, mean, std, num_classes, label_names, ...).
        license: SPDX, or None where the authors name none.
        size, sha256: of the file, in bytes and hex; None where it is converted from another, and then measured.
        file: the name of a bundled file in weights/bundled.
        hub: id, revision (a commit) and filename of a file on the Hugging Face Hub.
        model_args: arguments that the net was trained with, such as attn_kwargs; loading the tag applies them.
        origin: repository, and the url of a file that is converted: an archive of one file, the file itself, or a
            folder on Google Drive that has it; sha1 of that one file, where it is known.
        metrics: rows of dataset, split, images, top1 (%), top5, status ('measured' or 'claimed'), command, date.
        training: recipe, command, seed, epochs, date, hardware.
    """

    name: str
    tag: str
    kind: str
    num_params: int
    cfg: Mapping[str, Any]
    license: str | None
    size: int | None = None
    sha256: str | None = None
    file: str | None = None
    hub: Mapping[str, str] | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f'{self.name}.{self.tag}'

    @property
    def row(self) -> Kind:
        return KINDS[self.kind]

    @property
    def by_hand(self) -> str:
        """What a user can do where the file cannot be fetched."""
        return self.row.by_hand.format(name=self.full_name, **self.origin, **(self.hub or {}))

    @property
    def is_converted(self) -> bool:
        """Whether the file in the store is made from somebody else's."""
        return 'url' in self.origin


def bundled_dir() -> Path:
    """The folder of the files that come with the package."""
    return PACKAGE / 'weights' / 'bundled'


def manifest_path() -> Path:
    """In the wheel beside the package's modules, in a checkout at the root."""
    for folder in (PACKAGE, PACKAGE.parent):
        if (folder / MANIFEST).is_file():
            return folder / MANIFEST
    raise RuntimeError(f'{MANIFEST} is neither in {PACKAGE} nor in {PACKAGE.parent}: reinstall timm_attn.')


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """Every record: the names in the file's order, and of each name its default first.

    The default is a bundled one, else of ImageNet, else of CIFAR-10; within one data set the more accurate.

    Raises:
        RuntimeError: the manifest is missing, unreadable or damaged.
    """
    path = manifest_path()
    try:
        found = [_checkpoint(row) for row in json.loads(path.read_text(encoding='utf-8'))['checkpoints']]
    except OSError as error:
        raise RuntimeError(f'{path} cannot be read ({error.strerror}).') from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RuntimeError(f'{path} is damaged ({error!r}): reinstall timm_attn.') from error
    names = list(dict.fromkeys(c.name for c in found))
    return tuple(sorted(found, key=lambda c: (names.index(c.name), *_rank(c))))


def _rank(checkpoint: Checkpoint) -> tuple[bool, int, float]:
    best: Mapping[str, Any] = checkpoint.metrics[0] if checkpoint.metrics else {'dataset': '', 'top1': 0}
    data = DATA.index(best['dataset']) if best['dataset'] in DATA else len(DATA)
    return checkpoint.kind != 'bundled', data, -best['top1']


def _checkpoint(row: dict[str, Any]) -> Checkpoint:
    for outer, patterns in ('', PATTERNS), ('hub', HUB_PATTERNS), ('origin', ORIGIN_PATTERNS):
        where = row.get(outer) or {} if outer else row
        for name, pattern in patterns.items():
            if name in where and not re.fullmatch(pattern, where[name]):
                raise ValueError(f'{name} {where[name]!r} of a record does not match {pattern}')
    for name, shape in SHAPES.items():
        if name in row and row[name] != []:
            _check(name, row[name], shape)
    for name in KINDS[row['kind']].required:
        outer, _, inner = name.partition('.')
        if not row.get(outer) or (inner and not row[outer].get(inner)):
            raise ValueError(f'the {row["kind"]} record {row["name"]}.{row["tag"]} has no {name}')
    model_metadata(row.get('model_args') or {}, 'a record')
    input_metadata(row['cfg'], 'a record')
    cfg = {k: tuple(v) if isinstance(v, list) else v for k, v in row['cfg'].items()}  # as in timm's own cfgs
    return Checkpoint(**{**row, 'cfg': cfg, 'metrics': tuple(row.get('metrics', ()))})


def _check(where: str, value: Any, shape: Any) -> None:
    """Raises ValueError for a value that is not of its shape; an int must be positive, and a list must have items."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ValueError(f'{where} of a record is {value!r}, not an object')
        for key, inner in shape.items():
            if key not in value:
                raise ValueError(f'{where} of a record has no {key}')
            _check(f'{where}.{key}', value[key], inner)
    elif isinstance(shape, list):
        if not isinstance(value, list) or not value:
            raise ValueError(f'{where} of a record is {value!r}, not a list with items')
        for item in value:
            _check(where, item, shape[0])
    elif type(value) not in (shape if isinstance(shape, tuple) else (shape,)) or (shape is int and value < 1):
        raise ValueError(f'{where} of a record is {value!r}')


def checkpoints_of(name: str) -> tuple[Checkpoint, ...]:
    """The records of a model name."""
    return tuple(c for c in checkpoints() if c.name == name)


def find_full_name(full_name: str) -> Checkpoint:
    """The record of `{name}.{tag}`, or the first of a name.

    Raises:
        RuntimeError: there is none.
    """
    name, _, tag = full_name.partition('.')
    return find_checkpoint(name, tag or None)


def find_checkpoint(name: str, tag: str | None = None) -> Checkpoint:
    """The record of a name and tag, by default the first of the name.

    Raises:
        RuntimeError: there is none; the message says which there are of the name, or of its backbone.
    """
    of_name = checkpoints_of(name)
    for checkpoint in of_name:
        if tag in (None, checkpoint.tag):
            return checkpoint
    if tag is not None:
        if f'{name}.{tag}' in get_arch_pretrained_cfgs(name):
            raise RuntimeError(f'{name}.{tag} has no file of its own: it starts from the weights of the plain net.')
        tags = ', '.join(n.partition('.')[2] for n in get_arch_pretrained_cfgs(name) if '.' in n) or 'none'
        raise RuntimeError(f'Invalid pretrained tag ({tag}) for {name}: its tags are {tags}.')
    start = ''.join(f'{n}, which starts from the plain net, ' for n in timm.list_pretrained(f'{name}.*'))
    found = sorted((n for n in siblings(name) if checkpoints_of(n)), key=lambda n: not n.startswith(name))
    hint = f', such as {", ".join(found)}' if found else ''
    raise RuntimeError(
        f'No pretrained weights exist for {name}: use {start}pretrained=False for random init, or a name that '
        f'`timm-attn weights list` shows{hint}.'
    )
