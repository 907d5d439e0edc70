"""Folders of real images for the tests of training, and a short recipe for them."""

import csv
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST
from timm_attn.training.recipe import Recipe

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


def group_norm_net() -> nn.Module:
    """A net without batch statistics, in which it does not matter how a batch is parted."""
    torch.manual_seed(0)
    return timm.create_model('resnet18_simam', num_classes=10, norm_layer='groupnorm')


def rows(output: Path) -> list[dict[str, str]]:
    with open(output / 'summary.csv', newline='') as f:
        return list(csv.DictReader(f))
