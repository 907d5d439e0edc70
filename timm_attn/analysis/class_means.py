"""Means per class over a dataset, in memory that does not grow with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn.analysis.hooks import described, run
from timm_attn.attention.base import positive_integer

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass
class ClassMeans:
    """The running sums, (classes, C) in float64, and the numbers of images, (classes,)."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def zeros(cls, num_classes: int, channels: int) -> 'ClassMeans':
        return cls(torch.zeros(num_classes, channels, dtype=torch.float64), torch.zeros(num_classes, dtype=torch.int64))

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Adds one value per image and channel, (N, C), under the images' labels, (N,).

        Raises:
            ValueError: there is not one integer per image, or one of them is no class.
        """
        num_classes = len(self.counts)
        labels = _checked_labels(labels, len(values), num_classes)
        self.sums.index_add_(0, labels, values.double())
        self.counts += labels.bincount(minlength=num_classes)

    @property
    def means(self) -> Tensor:
        """The mean of every class and channel, (classes, C); NaN for a class without images."""
        return self.sums / self.counts[:, None]


def class_means(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int, values: dict[str, Tensor]
) -> dict[str, ClassMeans]:
    """The class means of `values`, which hooks fill at each forward pass with (N, C) per layer path.

    Raises:
        ValueError: there are no images, images or labels are not what class_selectivity takes, or a value is NaN or
            infinite, which would make the means of its class meaningless.
    """
    positive_integer('num_classes', num_classes)
    means: dict[str, ClassMeans] = {}
    seen = False
    for images, labels in batches:
        seen = True
        values.clear()
        run(model, images)
        labels = _checked_labels(labels, len(images), num_classes)
        for path, found in values.items():
            wrong = labels[~found.isfinite().all(dim=1)]
            if len(wrong):
                raise ValueError(f'Layer {path!r} gives NaN or infinite values for an image of class {int(wrong[0])}.')
            means.setdefault(path, ClassMeans.zeros(num_classes, found.shape[1])).add(found, labels)
    if not seen:
        raise ValueError('There are no images to take the means of.')
    return means


def _checked_labels(labels: Any, n: int, num_classes: int) -> Tensor:
    """The labels of n images as int64 on the CPU, checked."""
    is_integer = isinstance(labels, Tensor) and labels.dtype in _INTEGERS
    if not is_integer or labels.shape != (n,):
        valid = f'{n} integers from 0 to {num_classes - 1}, one per image'
        raise ValueError(f'The labels must be a tensor of {valid}, but got {described(labels)}.')
    labels = labels.long().cpu()
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f'Label {int(wrong[0])} is out of range: there are {num_classes} classes.')
    return labels
