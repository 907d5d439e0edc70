"""Pictures with what is known of them: what every data set of a task gives, and how a task opens it."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from timm_attn.downstream.recipe import TaskRecipe

Sample = tuple[Tensor, Any]  # a picture [C, H, W] from 0 to 1, and the task's target


class Samples(Protocol):
    """A data set of a task."""

    @property
    def classes(self) -> Sequence[str]:
        """Without a background; empty where a task has none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def name(self, index: int) -> str:
        """What a message calls a sample."""

    def fingerprint(self) -> dict[str, Any]:
        """The number of samples, 'images', and the 'sha256' of what tells them from others."""


class DataSet(NamedTuple):
    """A row of a task's data sets.

    Args:
        open: recipe, folder, whether it is for training -> samples.
        keys: of the recipe that it reads, beside the common ones.
    """

    open: Callable[[TaskRecipe, Path, bool], Samples]
    keys: Collection[str]


def digest(parts: Sequence[object]) -> str:
    """The SHA-256 of values as text, in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f'{part}\0'.encode('utf-8', 'surrogateescape'))
    return found.hexdigest()


def detection_target(
    index: int,
    size: tuple[int, int],
    boxes: Tensor,
    labels: Tensor,
    masks: Tensor | None = None,
    crowd: Tensor | None = None,
    area: Tensor | None = None,
) -> dict[str, Any]:
    """A target of detection, whose boxes and masks torchvision's transforms move along with the picture.

    Args:
        size: (H, W) of the picture.
        boxes: [N, 4], x1, y1, x2, y2 in pixels.
        labels: [N], from 1 on.
        masks: [N, H, W].
        crowd: [N], which boxes are regions that no detection is counted in.
        area: [N], in pixels; by default the boxes'.
    """
    boxes = boxes.float().reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    target: dict[str, Any] = dict(
        image_id=index,
        boxes=tv_tensors.BoundingBoxes(boxes, format='XYXY', canvas_size=size),
        labels=labels.long(),
        iscrowd=torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else crowd,
        area=sides.prod(dim=1) if area is None else area,
    )
    if masks is not None:
        target['masks'] = tv_tensors.Mask(masks.to(torch.uint8))
    return target


class Flipped:
    """Samples, each flipped from left to right with a probability, and its boxes and masks with it."""

    def __init__(self, samples: Samples, probability: float) -> None:
        self.samples, self.classes = samples, samples.classes
        self.flip = v2.RandomHorizontalFlip(probability)
        self.name, self.fingerprint = samples.name, samples.fingerprint

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, target = self.samples[index]
        flipped: Sample = self.flip(tv_tensors.Image(image), target)
        return flipped


def as_lists(samples: Sequence[Sample]) -> tuple[list[Tensor], list[Any]]:
    """The pictures and the targets of a batch, which may differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
