"""Scene parsing as a task (BAM Table 9): UPerNet, trained and measured as CSAIL's code does it on ADE20K."""

import colorsys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as v2

from timm_attn.downstream.data.ade20k import Ade20k
from timm_attn.downstream.data.samples import DataSet, Sample, Samples
from timm_attn.downstream.metrics.miou import IGNORED, Confusion
from timm_attn.downstream.metrics.psnr import to_uint8
from timm_attn.downstream.recipe import SPLITS, TaskRecipe
from timm_attn.downstream.upernet import upernet
from timm_attn.images import write_png
from timm_attn.reports.numbers import write_numbers
from timm_attn.training.processes import Processes

COLUMNS = ('mIoU', 'accuracy')
PADDING = 32  # pixels of which the sides of a batch are a multiple
SIDES = (300, 375, 450, 525, 600)  # of the shorter side in training, by chance
TEST_SIDE = 450
MOST = 1000  # of the longer side


def build(name: str, recipe: TaskRecipe, classes: Sequence[str]) -> nn.Module:
    """The UPerNet of a recipe on the backbone of that name."""
    options: dict[str, Any] = dict(image_mean=recipe.mean, image_std=recipe.std, backbone_kwargs=recipe.model_kwargs)
    return upernet(name, len(classes), pretrained_backbone=recipe.pretrained, **{**options, **recipe.task_kwargs})


class Resized:
    """Samples for a net: the picture's shorter side as wanted, the longer one at most 1000.

    For training the label map goes with it, and both are flipped by chance. For evaluation the label map stays as it
    is, and the picture's sides become multiples of 32.
    """

    def __init__(self, samples: Samples, sides: Sequence[int], hflip: float, training: bool) -> None:
        self.samples, self.classes = samples, samples.classes
        self.name, self.fingerprint = samples.name, samples.fingerprint
        self.sides, self.hflip, self.training = list(sides), hflip, training

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, labels = self.samples[index]
        side = self.sides[int(torch.randint(len(self.sides), ()))] if self.training else self.sides[0]
        scale = min(side / min(image.shape[1:]), MOST / max(image.shape[1:]))
        size = [max(1, int(length * scale)) for length in image.shape[1:]]
        if not self.training:
            return v2.resize(image, [_up(length) for length in size]), labels
        nearest = v2.InterpolationMode.NEAREST_EXACT
        image, labels = v2.resize(image, size), v2.resize(labels[None], size, nearest)[0]
        if torch.rand(()) < self.hflip:
            image, labels = image.flip(2), labels.flip(1)
        return image, labels


def _ade20k(recipe: TaskRecipe, folder: Path, training: bool) -> Samples:
    samples = Ade20k(folder, recipe.train_split if training else recipe.val_split)
    sides = recipe.train_img_sizes if training else recipe.input_size and recipe.input_size[1:2]
    return Resized(samples, sides or (SIDES if training else [TEST_SIDE]), recipe.hflip, training)


DATA = {'ade20k': DataSet(_ade20k, (*SPLITS, 'hflip', 'train_img_sizes', 'input_size'))}


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[Tensor]]:
    """One batch of pictures, the mean colour and multiples of 32 pixels around them, and the label maps as they are."""
    images = [image for image, _ in samples]
    height, width = (_up(max(image.shape[side] for image in images)) for side in (1, 2))
    batch = torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None].repeat(len(images), 1, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch, [labels for _, labels in samples]


def loss(model: nn.Module, batch: tuple[Tensor, list[Tensor]]) -> Tensor:
    """The cross-entropy of the labelled pixels at the size of the largest map, a quarter of the pictures'."""
    images, maps = batch
    logits = model(images, full_size=False)
    labels = maps[0].new_full((len(maps), 1, *images.shape[2:]), IGNORED)
    for place, one in zip(labels, maps, strict=True):
        place[0, : one.shape[0], : one.shape[1]] = one
    small = F.interpolate(labels.float(), size=logits.shape[2:], mode='nearest-exact')[:, 0].long()
    total = F.cross_entropy(logits.float(), small, ignore_index=IGNORED, reduction='sum')
    return total / (small != IGNORED).sum().clamp(min=1)


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[Any], classes: int, processes: Processes, autocast: Callable[[], Any]
) -> dict[str, float]:
    """Mean IoU over all classes and pixel accuracy in %, at the size of the label maps, over all processes."""
    confusion = Confusion(classes)
    for images, maps in batches:
        with autocast():
            logits = model(images, full_size=False)
        for one, labels in zip(logits, maps, strict=True):
            confusion.add(_at_size(one, labels.shape), labels)
    confusion.counts = torch.stack(processes.gather(confusion.counts)).sum(0)
    return {name: 100 * value for name, value in confusion.metrics().items()}


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor, classes: Sequence[str], picture: Path, numbers: str) -> Sequence[Path]:
    """The picture under a colour for each class, and the share of each class beside it."""
    size = tuple(image.shape[1:])
    whole = v2.resize(image, [_up(length) for length in size])
    found = _at_size(model(whole[None], full_size=False)[0], size).cpu().numpy()
    colours = np.array([_colour(number) for number in range(len(classes))])
    blended = (to_uint8(image).astype(np.float64) + 255 * colours[found]) / 2
    write_png(picture, blended.round().astype(np.uint8))
    shares = np.bincount(found.ravel(), minlength=len(classes)) / found.size
    rows = [
        {'class': classes[i], 'share': round(float(shares[i]), 4), 'colour': _hex(colours[i])}
        for i in np.argsort(-shares, kind='stable')
        if shares[i]
    ]
    return [picture, write_numbers(picture, numbers, rows)]


def _at_size(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The likeliest class of each pixel, (C, h, w) -> (H, W)."""
    return F.interpolate(logits[None].float(), size=tuple(size), mode='bilinear', align_corners=False)[0].argmax(0)


def _up(length: int) -> int:
    """The next multiple of 32."""
    return -(-length // PADDING) * PADDING


def _colour(number: int) -> tuple[float, float, float]:
    """Hues by the golden ratio, so that neighbours differ."""
    return colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.9 - 0.3 * (number % 3 == 1), 1 - 0.35 * (number % 2))


def _hex(colour: Any) -> str:
    return '#' + ''.join(f'{round(255 * float(part)):02x}' for part in colour)
