"""Folders and tars of class folders, as timm reads them, with every suffix that Pillow opens."""

import functools
import logging
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from PIL import Image
from timm.data import ImageDataset, create_dataset
from timm.data.readers import get_img_extensions, set_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torchvision.datasets import DatasetFolder

from timm_attn.images import decode_image, read_image, suffixes

_logger = logging.getLogger(__name__)
_OF_SYSTEMS = {'thumbs.db', 'desktop.ini'}  # hidden files of Windows, like names with a dot in front
_HIDDEN = '/'  # stands for the suffix of such a file
_SCANNED = 10 * 1024**3  # bytes; a larger tar is not scanned, because that takes longer than timm's cached list
_NAMED = 10  # suffixes in a message
_table_lock = threading.Lock()


def open_dataset(name: str, root: Path, split: str = 'validation', **arguments: Any) -> Any:
    """What timm's create_dataset makes of a name; for a folder or tar, a warning says how many files are left out.

    Raises:
        RuntimeError: a folder or tar has no images.
        tarfile.TarError, EOFError: a tar is damaged.
    """
    create: Any = create_dataset  # typed more narrowly than it is
    with _every_suffix():
        try:
            opened = create(name, root=str(root), split=split, **arguments)
        except ValueError as error:
            if not str(error).startswith('not enough values to unpack'):  # what timm says of a tar
                raise
            raise RuntimeError(f'Found 0 images in {root / split if (root / split).exists() else root}.') from error
        chosen = arguments.get('input_key')  # timm's folders take suffixes there
        accepted = set(chosen.split(';')) if chosen else get_img_extensions(as_set=True)
    if isinstance(opened, DatasetFolder):  # of torch/folder and torch/imagenet, which would decode by themselves
        opened.loader = _read
    reader = getattr(opened, 'reader', None)
    if isinstance(reader, (ReaderImageFolder, ReaderImageInTar)):
        left_out = Counter(suffix for suffix in map(_suffix, _files(reader.root)) if suffix not in accepted)
        del left_out[_HIDDEN]
        if left_out and _primary():
            _say_once(_left_out_of(reader.root, left_out))
    return opened


def split_in(data: Path, split: str) -> str:
    """The name of a split in a folder of data: SPLIT, or SPLIT.tar where there is no folder of that name."""
    tar = f'{split}.tar'
    return tar if not (data / split).exists() and (data / tar).is_file() else split


def labelled_image(dataset: ImageDataset, place: int, mode: str) -> tuple[Image.Image, int]:
    """An image of a dataset of timm in Pillow's mode L or RGB, and its label.

    Raises:
        ValueError: it cannot be read; the message has its name.
    """
    try:
        file, label = dataset.reader[place]
        with file:
            return decode_image(file).convert(mode), label
    except (OSError, ValueError, tarfile.TarError) as error:
        name: Any = dataset.filename
        raise ValueError(f'{name(place, absolute=True)} cannot be read as an image: {error}.') from error


def _read(path: str) -> Image.Image:
    return read_image(Path(path))


@contextmanager
def _every_suffix() -> Iterator[None]:
    """A block in which timm's table of suffixes also has Pillow's."""
    with _table_lock:  # two threads must not restore each other's table
        before = get_img_extensions()
        set_img_extensions((*before, *sorted(suffixes())))
        try:
            yield
        finally:
            set_img_extensions(before)


def _files(root: str) -> Iterator[str]:
    """The names of the files in the folders of a folder or tar, without those beside the folders."""
    if os.path.isdir(root):
        for folder, _, names in os.walk(root, followlinks=True):
            if folder != root:
                yield from names
    elif os.path.getsize(root) < _SCANNED:
        with tarfile.open(root) as tar:
            yield from _members(tar)


def _members(tar: tarfile.TarFile, of_a_class: bool = False) -> Iterator[str]:
    for member in tar:
        folder, name = os.path.split(os.path.normpath(member.name))
        if not member.isfile():
            continue
        if name.lower().endswith('.tar'):  # timm takes the files of an inner tar for a class
            with tarfile.open(fileobj=tar.extractfile(member)) as inner:
                yield from _members(inner, of_a_class=True)
        elif folder or of_a_class:
            yield name
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b'\0'):  # Python takes it for the end
        raise tarfile.ReadError(f'its header at byte {tar.offset} is damaged')


def _suffix(name: str) -> str:
    """The suffix of a name in lower case, with its dot; _HIDDEN for a hidden file."""
    if name.startswith('.') or name.lower() in _OF_SYSTEMS:
        return _HIDDEN
    return os.path.splitext(name)[1].lower()


def _primary() -> bool:
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _left_out_of(root: str, left_out: Counter[str]) -> str:
    most_first = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    found = [f'{count} {suffix!r}' if suffix else f'{count} without one' for suffix, count in most_first]
    others = f' and {len(found) - _NAMED} other suffixes' if len(found) > _NAMED else ''
    return (
        f'{root}: files in its folders that are left out, as no pictures by their suffix: {left_out.total()} '
        f'({", ".join(found[:_NAMED])}{others}).'
    )


@functools.cache
def _say_once(message: str) -> None:
    _logger.warning(message)
