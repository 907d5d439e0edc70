"""What a detector refuses, in one sentence each, before it computes anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SLACK = 1.0  # pixels by which a box may lie outside its picture; annotations are rounded


class Checked(nn.Module):
    """A mixin in front of a detector of torchvision: checks pictures, and in training targets.

    `in_chans` and `num_classes` (with the background) are set by the builder.
    """

    in_chans: int
    num_classes: int

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """The losses in training, and the detections else, as torchvision's detectors have them.

        Raises:
            ValueError: a picture or a target is not valid; the message says which and why.
        """
        check_images(images, self.in_chans)
        if self.training:
            check_targets(images, targets, self.num_classes)
        return super().forward(images, targets)


def check_images(images: Sequence[Tensor], channels: int) -> None:
    """Raises a ValueError for a picture that is not (channels, H, W), or not finite."""
    for place, image in enumerate(images):
        if image.dim() != 3 or len(image) != channels:
            raise ValueError(
                f'Picture {place} of the batch has shape {list(image.shape)}, but must be [{channels}, H, W].'
            )
        if not image.is_floating_point():
            raise ValueError(f'Picture {place} of the batch is {image.dtype}, but must be of floats from 0 to 1.')
    finite = [image.isfinite().all() for image in images]
    if finite and not torch.stack(finite).all():
        place = [bool(value) for value in finite].index(False)
        raise ValueError(f'Picture {place} of the batch has values that are not finite.')


def check_targets(images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None, num_classes: int) -> None:
    """Raises a ValueError for targets that do not fit their pictures, or whose labels are no class of the model."""
    if targets is None or len(targets) != len(images):
        found = 'none' if targets is None else len(targets)
        raise ValueError(f'Training needs one target for each of the {len(images)} pictures, but there are {found}.')
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        if problem := _problem(image, target, num_classes):
            raise ValueError(f'Target {place} of the batch {problem}.')


def _problem(image: Tensor, target: Mapping[str, Tensor], num_classes: int) -> str | None:
    missing = [key for key in ('boxes', 'labels') if not isinstance(target.get(key), Tensor)]
    if missing:
        return f'has no tensor {" and no tensor ".join(missing)}'
    boxes, labels = target['boxes'], target['labels']
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        return f'has boxes of shape {list(boxes.shape)}, but it must be [N, 4], also for none: [0, 4]'
    if labels.shape != boxes.shape[:1]:
        return f'has {len(boxes)} boxes, but labels of shape {list(labels.shape)}'
    height, width = image.shape[-2:]
    masks = target.get('masks')
    if masks is not None and masks.shape != (len(boxes), height, width):
        return f'has masks of shape {list(masks.shape)}, but they must be [{len(boxes)}, {height}, {width}]'
    if not len(boxes):
        return None
    wrong = labels[(labels < 1) | (labels >= num_classes)]
    if len(wrong):
        return f'has the label {int(wrong[0])}, but the classes are 1 to {num_classes - 1} (0 is the background)'
    limits = boxes.new_tensor([width, height, width, height]) + _SLACK
    good = (boxes >= -_SLACK) & (boxes <= limits)  # NaN is neither
    good[:, 2:] &= boxes[:, 2:] > boxes[:, :2]
    if not good.all():
        box = [round(value, 2) for value in boxes[int((~good).any(dim=1).int().argmax())].tolist()]
        return f'has the box {box}, but x1 < x2 and y1 < y2 must lie in the picture of {width} x {height}'
    return None
