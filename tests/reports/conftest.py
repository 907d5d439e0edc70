"""Bundled images in class folders."""

from pathlib import Path

import pytest

from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders of bundled images."""
    root = tmp_path_factory.mktemp('images')
    test = FashionMNIST('validation')
    for label, name in enumerate(CLASSES):
        of_class = root / f'{label}_{name.replace(" ", "-")}'
        of_class.mkdir()
        for i in (test.labels == label).nonzero()[0][:3]:
            test.image(int(i)).save(of_class / f'{i:05d}.png')
    return root
