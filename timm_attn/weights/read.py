"""Reads tensors from untrusted checkpoint files: runs no code of theirs, and bounds the size of what is unpacked."""

import argparse
import json
import lzma
import pickle
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class _Dropped:
    """Replaces what training scripts save beside the tensors, such as a numpy scalar of the best accuracy."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What zipfile raises for damaged archives; RuntimeError: a password, an unknown compression; ValueError: names.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)

_HARMLESS: list[Any] = [
    argparse.Namespace,
    *((_Dropped, name) for name in ('numpy.dtype', 'numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar')),
]


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The dict in a file of torch.save, or the tensors of a .safetensors file.

    A .safetensors file whose metadata says what trained it, as our runner's do, gives a checkpoint: `state_dict`,
    `arch`, `recipe` and `options`.

    Raises:
        ValueError: it is neither, or damaged, or holds more than tensors and plain values, or a tensor whose storage is
            smaller than its shape, or that is sparse, quantized or not on the CPU.
        OSError: the file cannot be read.
    """
    with path.open('rb') as file:
        head = file.read(64)
    if re.match(rb'\s*<[!?a-zA-Z]', head):  # a header of safetensors may begin with b' <', its length
        raise ValueError(f'{path} is an HTML page, no checkpoint: download the file itself in a browser.')
    if path.suffix.lower() == '.safetensors':
        return _read_safetensors(path)
    _check_members(path)
    content = _read_pickle(path)
    _check_tensors(content, path)
    return content


@contextmanager
def unpacked(path: Path, limit: int, folder: Path | None = None) -> Iterator[Path]:
    """The one file in a zip archive, in a temporary folder under a name of ours; the path itself if it is no archive.

    A file of torch.save is an archive too, but one of its own kind.

    Args:
        folder: where that temporary folder is, by default the system's place for them.

    Raises:
        ValueError: the archive is damaged, holds several files, one in a folder, or one of more than `limit` bytes.
    """
    members = _members(path)
    if not members or _is_torchs(members):
        yield path
        return
    if len(members) != 1:
        raise ValueError(f'{path} must hold one checkpoint, but holds {len(members)} files.')
    if re.search(r'[/\\:]', members[0].filename):
        raise ValueError(f'{path} holds {members[0].filename!r}, but must hold one file outside of any folder.')
    if members[0].file_size > limit:
        raise ValueError(f'{path} unpacks to {members[0].file_size:,} bytes, more than the {limit:,} allowed.')
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        inner = Path(scratch, f'unpacked{Path(members[0].filename).suffix}')
        try:
            with zipfile.ZipFile(path) as archive, archive.open(members[0]) as packed, inner.open('wb') as out:
                shutil.copyfileobj(packed, out)
        except _DAMAGED as error:
            raise ValueError(f'{path} is a damaged archive: {error}.') from error
        except OSError as error:
            if error.errno is None:  # of bz2
                raise ValueError(f'{path} is a damaged archive: {error}.') from error
            raise OSError(error.errno, f'{path} cannot be unpacked to {scratch} ({error.strerror})') from error
        yield inner


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive; none if it is no archive."""
    try:
        if not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            return [member for member in archive.infolist() if not member.is_dir()]
    except _DAMAGED as error:
        raise ValueError(f'{path} is a damaged archive: {error}.') from error


def _is_torchs(members: Iterable[zipfile.ZipInfo]) -> bool:
    return any(member.filename.endswith('/data.pkl') for member in members)


def _check_members(path: Path) -> None:
    """Checks the members and their CRC-32, which torch.load does not. torch.save stores them uncompressed.

    Raises:
        ValueError: members are compressed, which torch.load would unpack to any size, or their bytes have changed.
    """
    members = _members(path)
    with path.open('rb') as file:
        if not members and file.read(4) == b'PK\3\4':  # by which torch.load knows an archive
            raise ValueError(f'{path} is a damaged archive: it has no readable list of members.')
    if members and (
        any(member.compress_type != zipfile.ZIP_STORED for member in members)
        or sum(member.file_size for member in members) > path.stat().st_size
    ):
        raise ValueError(f'{path} has compressed members, which torch.save does not write: not opened.')
    if not any(member.CRC for member in members):  # not computed: torch.serialization.set_crc32_options(False)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except _DAMAGED as error:
        raise ValueError(f'{path} is a damaged archive: {error}.') from error
    if changed is not None:
        raise ValueError(f'{path} is damaged: the bytes of {changed} are not those that were written.')


def _check_tensors(content: Any, path: Path) -> None:
    """Raises ValueError for tensors of a pickle that are not dense CPU tensors, or larger than the file."""
    storages: dict[int, int] = {}
    for tensor in _tensors_in(content):
        if tensor.is_nested or tensor.is_quantized or (tensor.layout, tensor.device.type) != (torch.strided, 'cpu'):
            raise ValueError(f'{path} has a tensor that is not a plain one ({tensor.layout}, {tensor.device}).')
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            shape, held = tuple(tensor.shape), f'{storage.nbytes():,}'
            raise ValueError(f'{path} has a tensor of shape {shape}, of which it holds only {held} bytes.')
    if sum(storages.values()) > path.stat().st_size:
        raise ValueError(f'{path} has tensors of {sum(storages.values()):,} bytes, more than the file.')


def _tensors_in(content: Any) -> Iterator[Tensor]:
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (Mapping, list, tuple, argparse.Namespace)) and id(value) not in seen:
            seen.add(id(value))
            values = vars(value) if isinstance(value, argparse.Namespace) else value
            left.extend(values.values() if isinstance(values, Mapping) else values)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        tensors = safetensors.torch.load_file(path)
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f'{path} is no safetensors file: {error}.') from error
    if 'recipe' not in metadata:
        return tensors
    try:
        recipe, options = (json.loads(text) for text in (metadata['recipe'], metadata.get('options', '{}')))
        return dict(state_dict=tensors, arch=metadata['arch'], recipe=recipe, options=options)
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError(f'{path} has metadata that this runner did not write: {error}.') from error


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        why = str(error).partition('Check the documentation')[0].strip().splitlines()[-1]  # before that, torch's advice
        raise ValueError(
            f'{path} is no checkpoint of torch, or holds more than tensors and plain values; nothing was run: {why}'
        ) from error
    except OSError:
        raise
    except Exception as error:  # from a damaged pickle torch's unpickler raises nearly anything
        why = ' '.join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f'{path} is no checkpoint of torch: {why}') from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} must hold a state dict, but holds {type(content).__name__}.')
    return content
