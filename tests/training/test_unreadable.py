"""Images and tars that cannot be read."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
from timm.data.scheduled_sampler import ScheduledTransformDataset

from tests.support.commands import ROOT
from tests.support.images import MODEL, refused, rows, short
from timm_attn.data.datasets import Subset, UnreadableImageError
from timm_attn.data.fashion_mnist import FashionMNIST
from timm_attn.reports.dataset import Pictures
from timm_attn.training.runner import train
from timm_attn.training.splits import names_of, open_split, unreadable
from timm_attn.training.validate import validate


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_images(workers: int, small: Path, tmp_path: Path) -> None:
    broken = sorted((small / 'train' / '1_trouser').iterdir())[:2]
    broken[0].write_text('not an image')
    broken[1].write_bytes(broken[1].read_bytes()[:100])
    recipe = short(workers=workers, batch_size=10, epochs=1)
    with pytest.raises(
        UnreadableImageError, match=r'^\S+1_trouser/\d+.png cannot be read as an image: .*--unreadable skip'
    ):
        train(recipe, MODEL, small, tmp_path / 'stopped')
    train(recipe, MODEL, small, tmp_path / 'skipped', skip_unreadable=True)
    assert rows(tmp_path / 'skipped')[0]['unreadable'] == '2'
    images = open_split(recipe, small, 'train', training=True, skip_unreadable=True)
    assert unreadable(images) == 0 and images[len(images) - 1][1] == 1
    place = images.reader.samples.index((str(broken[0]), 1))
    assert images[place][1] == 1 and unreadable(images) == 2  # both have another in their place
    part = Subset(images, [place, 0])
    assert part[0][1] == 0 and unreadable(part) == 1  # one of the part
    for file in small.glob('*/*/*'):
        file.write_text('broken')
    with pytest.raises(UnreadableImageError, match='Not one of the 20 files'):
        open_split(recipe, small, 'train', training=True, skip_unreadable=True)[0]
    with pytest.raises(ValueError, match='no images to evaluate'):
        validate(MODEL, small, weights=tmp_path / 'skipped' / 'last.pth.tar', skip_unreadable=True)


def test_unreadable_images_count_for_nothing_in_a_test(small: Path, tmp_path: Path) -> None:
    """Another in its place would count twice, and may be of another class."""
    weights = train(short(epochs=1), MODEL, small, tmp_path / 'out')
    whole = validate(MODEL, small, weights=weights)
    broken = sorted((small / 'validation' / '0_t-shirt').iterdir())
    for file in broken:
        file.write_text('broken')
    found = validate(MODEL, small, weights=weights, skip_unreadable=True)
    for file in broken:
        file.unlink()
    (small / 'validation' / '0_t-shirt' / 'readable.png').write_bytes(next(small.glob('train/0*/*')).read_bytes())
    assert found['unreadable'] == len(broken) and found['images'] == 20 - len(broken)
    right = validate(MODEL, small, weights=weights)  # with one more image
    assert abs(right['top1'] * right['images'] - found['top1'] * found['images']) in (
        pytest.approx(0, abs=1e-6),
        pytest.approx(100),
    )
    assert whole['images'] == 20 and whole['loss'] != found['loss']


@pytest.mark.parametrize('wrap', [lambda d: Subset(d, range(10, 20)), lambda d: ScheduledTransformDataset(d, [str])])
def test_the_images_of_a_loss_have_names(wrap: Any, folders: Path) -> None:
    images = open_split(short(), folders, 'train')
    start = 10 if isinstance(wrap(images), Subset) else 0
    assert names_of(wrap(images), [2, 3]) == [str(images.filename(start + i, absolute=True)) for i in (2, 3)]
    assert names_of(wrap(FashionMNIST('train')), [2, 3]) == [f'number {start + 2}', f'number {start + 3}']


@pytest.mark.parametrize('content', [b'', b'not a tar' * 1000])
def test_damaged_tars(content: bytes, small: Path, tmp_path: Path) -> None:
    (small / 'train').rename(small / 'elsewhere')
    (small / 'train.tar').write_bytes(content)
    refused('train.tar is not a whole tar', small, tmp_path / 'out')


def test_tars_without_images(small: Path, tmp_path: Path) -> None:
    (small / 'train').rename(small / 'elsewhere')
    with tarfile.open(small / 'train.tar', 'w') as tar:
        tar.add(ROOT / 'README.md', arcname='a/README.md')
    refused('Found 0 images in .*small/train.tar', small, tmp_path / 'out')
    with pytest.raises(ValueError, match='train.tar has no images in class folders: Found 0 images'):
        Pictures(small / 'train.tar')


def test_a_damaged_header_in_the_middle_of_a_tar(small: Path, tmp_path: Path) -> None:
    """Python's tarfile takes it for the end, and all behind it would be gone unsaid."""
    with tarfile.open(tmp_path / 'train.tar', 'w', format=tarfile.GNU_FORMAT) as tar:
        tar.add(small / 'train', arcname='.')
    with tarfile.open(tmp_path / 'train.tar') as tar:
        place = tar.getmembers()[-5].offset
    content = bytearray((tmp_path / 'train.tar').read_bytes())
    content[place + 150] ^= 1  # of its checksum
    (small / 'train').rename(small / 'elsewhere')
    (small / 'train.tar').write_bytes(content)
    refused(f'train.tar is not a whole tar: its header at byte {place} is damaged', small, tmp_path / 'out')
    with pytest.raises(ValueError, match=f'its header at byte {place} is damaged'):
        Pictures(small / 'train.tar')


def test_an_image_that_is_not_there(small: Path) -> None:
    """A link to nowhere is skipped as a damaged file is."""
    gone = sorted((small / 'train' / '1_trouser').iterdir())[0]
    gone.unlink()
    gone.symlink_to(small / 'nowhere.png')
    images = open_split(short(), small, 'train', training=True, skip_unreadable=True)
    assert {images[i][1] for i in range(len(images))} == {0, 1} and unreadable(images) == 1
    images = open_split(short(dataset='folder'), small, 'train', training=True)
    with pytest.raises(UnreadableImageError, match='1_trouser.*cannot be read as an image'):
        [images[i] for i in range(len(images))]
