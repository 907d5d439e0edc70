"""Files of unknown origin: what is opened, and what is refused without running or unpacking it."""

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from timm_attn.weights.read import read_checkpoint, unpacked

TENSORS = {'a': torch.arange(6.0).reshape(2, 3)}


def opened(path: Path, limit: int = 10_000) -> Any:
    with unpacked(path, limit) as inner:
        return read_checkpoint(inner)


def in_zip(path: Path, name: str, content: bytes, **kwargs: Any) -> Path:
    archive = path.with_suffix('.pth.zip')
    with zipfile.ZipFile(archive, 'w', **kwargs) as out:
        out.writestr(name, content)
    return archive


@pytest.mark.parametrize(
    'extra',
    [
        {},
        {'epoch': 3, 'best_acc1': np.float64(77.4), 'best': np.int64(3), 'arch': 'resnet50'},
        {'args': argparse.Namespace(lr=0.1, model='resnet50', model_kwargs={'attn_kwargs': {'e_lambda': 0.1}})},
        {'optimizer': {'state': {0: {'momentum_buffer': torch.ones(2)}}, 'param_groups': [{'lr': 0.1}]}},
    ],
    ids=['bare', 'numpy scalars', 'namespace', 'optimizer'],
)
@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_checkpoints_of_training_scripts(extra: dict[str, Any], legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / 'model_best.pth.tar'
    torch.save({'state_dict': TENSORS, **extra}, path, _use_new_zipfile_serialization=not legacy)
    content = opened(path)
    torch.testing.assert_close(dict(content['state_dict']), TENSORS)
    assert set(content) == {'state_dict', *extra}
    if 'args' in extra:
        assert content['args'].model_kwargs == {'attn_kwargs': {'e_lambda': 0.1}}


def test_safetensors_and_archives_of_one_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / 'x.safetensors')
    torch.save(TENSORS, tmp_path / 'x.pth')
    for path in (tmp_path / 'x.safetensors', tmp_path / 'x.pth'):
        torch.testing.assert_close(dict(opened(path)), TENSORS)
        torch.testing.assert_close(dict(opened(in_zip(path, path.name, path.read_bytes()))), TENSORS)
        for name in (f'../../{path.name}', f'/etc/{path.name}', f'folder/{path.name}', f'C:{path.name}'):
            with pytest.raises(ValueError, match='but must hold one file outside of any folder'):
                opened(in_zip(path, name, path.read_bytes()))
    assert {p.name for p in tmp_path.iterdir()} == {'x.safetensors', 'x.pth', 'x.pth.zip'}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ('touch evil_was_here',)


def _evil(path: Path) -> Path:
    torch.save({'state_dict': TENSORS, 'extra': Evil()}, path)
    return path


def _evil_legacy(path: Path) -> Path:
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    return path


def _deflated(path: Path) -> Path:
    """A checkpoint of torch whose members unpack to a thousand times their size."""
    torch.save({'a': torch.zeros(1_000_000)}, path)
    packed = path.with_name('packed.pth')
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
    return packed


def _two(path: Path) -> Path:
    archive = in_zip(path, 'a.pth', b'1')
    with zipfile.ZipFile(archive, 'a') as out:
        out.writestr('b.pth', b'2')
    return archive


def _broken_inside(path: Path) -> Path:
    archive = in_zip(path, 'x.pth', bytes(range(256)) * 30, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(archive.read_bytes())
    content[60:64] = b'\xff' * 4
    archive.write_bytes(content)
    return archive


def _no_such_storage(path: Path) -> Path:
    """A tensor in the old format whose bytes are under another key."""
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    key = str(TENSORS['a'].untyped_storage()._cdata).encode()
    assert content.count(key) == 2
    path.write_bytes(content[::-1].replace(key[::-1], b'9' * len(key), 1)[::-1])
    return path


def _cut(path: Path) -> Path:
    torch.save({'a': torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def _written(content: bytes, name: str = 'x.pth') -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path = path.with_name(name)
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    'make, message',
    [
        (_evil, r'holds more than tensors and plain values; nothing was run: .*posix\.system'),
        (_evil_legacy, r'holds more than tensors and plain values; nothing was run: .*posix\.system'),
        (_deflated, 'has compressed members, which torch.save does not write'),
        (
            lambda path: in_zip(path, 'x.pth', bytes(20_000), compression=zipfile.ZIP_DEFLATED),
            '20,000 bytes, more than',
        ),
        (_two, 'must hold one checkpoint, but holds 2 files'),
        (_broken_inside, r'x\.pth\.zip is a damaged archive: '),
        (_no_such_storage, r'is no checkpoint of torch: (storage key .* not found|AssertionError)'),
        (_cut, 'is a damaged archive: it has no readable list of members'),
        (_written(b'<!DOCTYPE html><html>confirm</html>'), 'is an HTML page, no checkpoint'),
        (_written(b''), 'is no checkpoint of torch'),
        (_written(b'garbage'), 'is no checkpoint of torch|holds more than'),
        (_written(b'garbage', 'x.safetensors'), 'is no safetensors file'),
        (
            _written(pickle.dumps([1, 2], protocol=2)),
            'holds more than tensors|is no checkpoint of torch|must hold a state dict, but holds list',
        ),
    ],
    ids=[
        'code',
        'legacy code',
        'bomb',
        'zip bomb',
        'two files',
        'broken inside',
        'no such storage',
        'cut',
        'html',
        'empty',
        'garbage',
        'garbage.st',
        'list',
    ],
)
def test_what_is_refused(
    make: Callable[[Path], Path], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        opened(make(tmp_path / 'x.pth'))
    assert not Path('evil_was_here').exists()
    assert len(str(error.value).splitlines()) == 1 and re.search(r'/x\.pth|packed|x\.safetensors', str(error.value))


def test_safetensors_that_begin_like_a_page(tmp_path: Path) -> None:
    """Their first bytes are the length of the header: 15392 is a space and '<'."""
    path = tmp_path / 'x.safetensors'
    save_file(TENSORS, path, metadata={'x': 'x' * 15300})
    length = int.from_bytes(path.read_bytes()[:8], 'little')
    save_file(TENSORS, path, metadata={'x': 'x' * (15300 + 15392 - length)})
    assert path.read_bytes()[:2] == b' <'
    torch.testing.assert_close(dict(opened(path)), TENSORS)
