"""The idx files and the bundled part of Fashion-MNIST."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from timm.data import create_dataset

from tests.support.commands import ROOT
from timm_attn.data.fashion_mnist import BUNDLED, CLASSES, FashionMNIST
from timm_attn.data.idx import read_idx, write_idx


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_the_bundled_part_is_balanced(split: str) -> None:
    images = FashionMNIST(split)
    assert len(images) == 1000 and np.bincount(images.labels).tolist() == [100] * len(CLASSES)
    image, label = images[3]
    assert image.mode == 'RGB' and image.size == (28, 28) and label == images.labels[3]


def test_no_test_image_is_a_training_image() -> None:
    train, test = ({i.tobytes() for i in FashionMNIST(split).images} for split in ('train', 'validation'))
    assert len(train) == len(test) == 1000 and not train & test


def test_idx_round_trip(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    for name in ('one.gz', 'two.gz'):
        write_idx(tmp_path / name, array)
    assert (read_idx(tmp_path / 'one.gz') == array).all()
    assert (tmp_path / 'one.gz').read_bytes() == (tmp_path / 'two.gz').read_bytes()


def test_bad_idx_files(tmp_path: Path) -> None:
    (tmp_path / 'text').write_bytes(b'hello')
    with pytest.raises(ValueError, match='not an idx file of unsigned bytes: it starts with 68656c6c'):
        read_idx(tmp_path / 'text')
    whole = (BUNDLED / 't10k-labels-idx1-ubyte.gz').read_bytes()
    for damaged in (whole[:-9], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        (tmp_path / 'damaged.gz').write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged.gz is damaged'):
            read_idx(tmp_path / 'damaged.gz')
    (tmp_path / 'cut').write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1, 2]))
    with pytest.raises(ValueError, match=r'holds 2 values, but its header announces \(9,\)'):
        read_idx(tmp_path / 'cut')
    with pytest.raises(FileNotFoundError, match='has no train-images-idx3-ubyte.gz'):
        FashionMNIST('train', tmp_path)


def test_timm_reads_the_tars_as_rgb(tmp_path: Path) -> None:
    source = ROOT / 'timm_attn' / 'data' / 'fashion_mnist'
    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, source, tmp_path], check=True, capture_output=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['train.tar', 'validation.tar']
    for split in ('train', 'validation'):
        dataset, ours = create_dataset('', root=str(tmp_path), split=f'{split}.tar'), FashionMNIST(split)
        assert len(dataset) == 1000
        folders = {dataset.filename(i).split('/')[-2] for i in range(1000)}
        assert folders == {f'{i}_{c.replace(" ", "-")}' for i, c in enumerate(CLASSES)}
        index = int(dataset.filename(0).split('/')[-1].removesuffix('.png'))
        image, label = dataset[0]
        assert image.mode == 'RGB' and label == ours.labels[index]
        assert (np.asarray(image)[..., 0] == ours.images[index]).all()
