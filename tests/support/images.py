"""Folders of real images for the tests of training, and a short recipe for them."""

import csv
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from timm_attn.data.datasets import Subset
from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST
from timm_attn.images import read_image
from timm_attn.reports.dataset import Pictures
from timm_attn.training import checkpoint
from timm_attn.training.recipe import Recipe
from timm_attn.training.runner import train
from timm_attn.training.splits import open_split

MODEL = 'cifar_resnet20_simam'
CONFIG: dict[str, Any] = dict(
    input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation='bilinear', crop_pct=1.0
)


def short(**changes: Any) -> Recipe:
    """Two epochs of five steps at 16x16."""
    settings: dict[str, Any] = dict(
        batch_size=20, epochs=2, workers=0, input_size=[3, 16, 16], opt='momentum', lr=0.05, warmup_epochs=0,
        smoothing=0.0, color_jitter=None, train_interpolation='bilinear', crop_pct=1.0, device='cpu', seed=3,
    )  # fmt: skip
    return Recipe(**{**settings, **changes})


def first_images() -> Subset:
    """The first 100 bundled images."""
    return Subset(FashionMNIST('train'), range(100))


def write_folders(root: Path, per_split: int = 100, classes: int = 10) -> Path:
    """root/train/CLASS/*.png and root/validation/CLASS/*.png of the bundled Fashion-MNIST."""
    for split in ('train', 'validation'):
        images = FashionMNIST(split)
        chosen = [i for i in range(len(images)) if images.labels[i] < classes][:per_split]
        for i in chosen:
            folder = root / split / f'{images.labels[i]}_{CLASSES[images.labels[i]].replace(" ", "-")}'
            folder.mkdir(parents=True, exist_ok=True)
            images.image(i).save(folder / f'{i:04d}.png')
    return root


def read_all_ways(file: Path, root: Path, mode: str = 'RGB') -> dict[str, npt.NDArray[np.uint8]]:
    """The pixels of a picture by itself, and in a folder and a tar for training and for the reports."""
    for of_class in ('a', 'b'):
        (root / 'folder' / of_class).mkdir(parents=True)
        shutil.copy(file, root / 'folder' / of_class)
    with tarfile.open(root / 'packed.tar', 'w') as tar:
        tar.add(root / 'folder', arcname='.')
    found = {'alone': read_image(file).convert(mode)}
    recipe = short(input_size=[3 if mode == 'RGB' else 1, 16, 16])
    for split, path in (('folder', root / 'folder'), ('packed', root / 'packed.tar')):
        pictures = Pictures(path)
        pictures.input_img_mode = mode
        images = open_split(recipe, root, split)
        assert len(pictures) == len(images) == 2 and [images[i][1] for i in range(2)] == [0, 1]
        found |= {f'{split}, training': images[1][0], f'{split}, reports': pictures[1][0]}
    assert {image.mode for image in found.values()} == {mode}
    return {way: np.asarray(image) for way, image in found.items()}


def group_norm_net() -> nn.Module:
    """A net without batch statistics, in which it does not matter how a batch is parted."""
    torch.manual_seed(0)
    return timm.create_model('resnet18_simam', num_classes=10, norm_layer='groupnorm')


def rows(output: Path) -> list[dict[str, str]]:
    with open(output / 'summary.csv', newline='') as f:
        return list(csv.DictReader(f))


def same(a: Path, b: Path) -> bool:
    """Whether two runs ended in the same weights, bit for bit, and measured the same."""
    ours, theirs = load_file(a / 'last.safetensors'), load_file(b / 'last.safetensors')
    untimed = [[{k: v for k, v in row.items() if k != 'seconds'} for row in rows(run)] for run in (a, b)]
    return (
        ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours) and untimed[0] == untimed[1]
    )


def interrupted(recipe: Recipe, model: str, folder: Path, output: Path) -> None:
    """A training that is stopped after its first epoch."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match='Interrupted'):
        patch.setattr('timm_attn.training.epochs._report', stop)
        train(recipe, model, folder, output)


def assert_same_weights(a: Path, b: Path) -> None:
    """The checkpoints of two runs agree bit for bit."""
    ours, theirs = (checkpoint.load(out / 'last.pth.tar')['state_dict'] for out in (a, b))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def refused(message: str, folder: Path, output: Path, recipe: Recipe | None = None) -> None:
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError), match=message):
        train(recipe or short(), MODEL, folder, output)
    assert not output.exists()  # nothing half-written
