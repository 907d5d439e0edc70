"""A run goes on with the very images that it began with, or not at all."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import ImageDataset, IterableImageDataset
from torchvision.datasets import ImageFolder

from tests.support.commands import ROOT
from tests.support.images import MODEL, short
from timm_attn.data.datasets import Subset
from timm_attn.data.fashion_mnist import BUNDLED
from timm_attn.training import checkpoint
from timm_attn.training.fingerprint import IMAGES, fingerprint
from timm_attn.training.runner import train
from timm_attn.training.splits import held_out, open_split


def files(root: Path, split: str) -> list[Path]:
    return sorted((root / split).glob('*/*'))


def swapped(root: Path, split: str) -> None:
    """As many images, of the same names, two in each other's class."""
    first, last = files(root, split)[0], files(root, split)[-1]
    names = first.name, last.name
    first.rename(root / 'aside')
    last.rename(last.parent / names[0])
    (root / 'aside').rename(first.parent / names[1])


CHANGES: dict[str, tuple[Callable[[Path, str], Any], str]] = {
    'removed': (lambda root, split: files(root, split)[0].unlink(), '20 then, 19 now'),
    'added': (lambda root, split: (files(root, split)[0].parent / 'n.png').write_bytes(b''), '20 then, 21 now'),
    'renamed': (
        lambda root, split: files(root, split)[0].rename(files(root, split)[0].parent / 'z.png'),
        'as then, but',
    ),
    'relabelled': (swapped, '20 as then, but with other names or labels, or in another order'),
}


@pytest.fixture
def ended(small: Path, tmp_path: Path) -> Path:
    train(short(epochs=1, batch_size=10), MODEL, small, tmp_path / 'out')
    return tmp_path / 'out'


@pytest.mark.parametrize('split', ['train', 'validation'])
@pytest.mark.parametrize('change', CHANGES)
def test_other_images_are_refused(change: str, split: str, small: Path, ended: Path) -> None:
    before = {path: path.read_bytes() for path in ended.iterdir()}
    changed, words = CHANGES[change]
    changed(small, split)
    name = IMAGES[split == 'validation']
    with pytest.raises(ValueError, match=rf'last.pth.tar was trained otherwise: {name} \(.*{words}.*\)\.$'):
        train(short(epochs=1, batch_size=10), MODEL, small, ended, resume=True)
    assert {path: path.read_bytes() for path in ended.iterdir()} == before


def test_the_same_images_elsewhere_are_the_same(small: Path, ended: Path, tmp_path: Path) -> None:
    small.rename(tmp_path / 'moved')
    train(short(epochs=1, batch_size=10), MODEL, tmp_path / 'moved', ended, resume=True)


def test_a_checkpoint_that_does_not_say_its_images_is_refused(small: Path, ended: Path) -> None:
    state = checkpoint.load(ended / 'last.pth.tar')
    state['options'] = {k: v for k, v in state['options'].items() if k not in IMAGES}
    checkpoint.save(ended / 'last.pth.tar', state)
    with pytest.raises(ValueError, match=r'training images \(it does not say which it had\), validation images'):
        train(short(epochs=1, batch_size=10), MODEL, small, ended, resume=True)


def test_what_is_held_out_belongs_to_it(small: Path) -> None:
    parts = held_out(short(), small, 5)
    assert [fingerprint(part)['images'] for part in parts] == [15, 5]
    backwards = Subset(parts[0].dataset, parts[0].indices[::-1])
    digests = [fingerprint(part)['sha256'] for part in (*parts, backwards, Subset(parts[0].dataset, range(20)))]
    assert len({*digests}) == 4 and digests[3] == fingerprint(open_split(short(), small, 'train'))['sha256']
    (files(small, 'train')[0]).rename(files(small, 'train')[0].parent / 'z.png')
    assert fingerprint(held_out(short(), small, 5)[0])['sha256'] != digests[0]


def test_tars(tmp_path: Path) -> None:
    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, BUNDLED, tmp_path], check=True, capture_output=True)
    images = open_split(short(), tmp_path, 'train')
    found = fingerprint(images)
    assert found['images'] == 1000 and len(found['sha256']) == 64
    images.reader.samples[0][0].name += 'x'
    assert fingerprint(images)['sha256'] != found['sha256']


def torchs(labels: Any) -> Any:
    """A set of torchvision, which has labels and no names."""
    return type('Set', (), {'targets': labels, '__len__': lambda self: 3})()


def test_sets_that_name_nothing(small: Path) -> None:
    mnist, cifar, other = (fingerprint(torchs(labels)) for labels in (torch.tensor([0, 1, 2]), [0, 1, 2], [0, 2, 1]))
    assert mnist == cifar != other and mnist['images'] == 3
    hfds = ImageDataset('', reader=type('Reader', (), {'__len__': lambda self: 7})())
    assert fingerprint(hfds) == dict(images=7, sha256=None)
    stream = IterableImageDataset('', reader=SimpleNamespace(num_samples=9))
    assert fingerprint(stream) == dict(images=9, sha256=None)
    assert fingerprint(IterableImageDataset('', reader=SimpleNamespace())) == dict(images=None, sha256=None)
    # torchvision's folders are timm's
    assert fingerprint(ImageFolder(str(small / 'train'))) == fingerprint(open_split(short(), small, 'train'))


def test_a_large_set_costs_little() -> None:
    count = 130_000  # a tenth of ImageNet
    folder = SimpleNamespace(root='/d', samples=[(f'/d/n{i % 100:08d}/{i}.JPEG', i % 100) for i in range(count)])
    members = np.empty((count, 3), dtype=object)
    members[:, 0] = [SimpleNamespace(name=path) for path, _ in folder.samples]
    tar = SimpleNamespace(samples=members, targets=np.arange(count) % 100)
    for reader in (folder, tar):
        images = type('Set', (), {'reader': reader, '__len__': lambda self: count})()
        start = time.process_time()
        assert fingerprint(images)['images'] == count
        assert time.process_time() - start < 1  # s; a path relative to the root by os.path costs more
