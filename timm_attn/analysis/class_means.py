"""Means per class over a dataset, in memory that does not grow with it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ClassMeans:
    """The running sums, (classes, C) in float64, and the numbers of images, (classes,)."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def zeros(cls, num_classes: int, channels: int) -> 'ClassMeans':
        return cls(torch.zeros(num_classes, channels, dtype=torch.float64), torch.zeros(num_classes, dtype=torch.int64))

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Takes in a value a channel, (N, C), of images with labels, (N,).

        Raises:
            ValueError: a label is no class.
        """
        num_classes = len(self.counts)
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise ValueError(f'Label {int(wrong[0])} is out of range: there are {num_classes} classes.')
        self.sums.index_add_(0, labels, values.double())
        self.counts += labels.bincount(minlength=num_classes)

    @property
    def means(self) -> Tensor:
        """The mean of every class and channel, (classes, C); NaN for a class without images."""
        return self.sums / self.counts[:, None]
