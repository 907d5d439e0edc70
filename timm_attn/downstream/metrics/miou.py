"""Mean IoU and pixel accuracy of scene parsing as CSAIL's code for ADE20K counts them (BAM Table 9)."""

import torch
from torch import Tensor

IGNORED = -1  # the label of pixels that count for nothing


class Confusion:
    """Counts pixels by their label and their prediction, over any number of pictures."""

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # [label, prediction]

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Two maps of one shape; labels may be IGNORED.

        Raises:
            ValueError: other shapes, or values that are no class.
        """
        classes = len(self.counts)
        if predictions.shape != labels.shape:
            raise ValueError(
                f'Predictions of shape {list(predictions.shape)} do not fit labels of {list(labels.shape)}.'
            )
        for name, values, least in (('Labels', labels, IGNORED), ('Predictions', predictions, 0)):
            wrong = values[(values < least) | (values >= classes)]
            if len(wrong):
                raise ValueError(f'{name} must be from {least} to {classes - 1}, but one is {int(wrong[0])}.')
        known = labels != IGNORED
        pairs = labels[known].long() * classes + predictions[known].long()
        self.counts += torch.bincount(pairs.flatten().cpu(), minlength=classes**2).view(classes, classes)

    def ious(self) -> Tensor:
        """Per class: intersection / union, 0 for a class that is neither there nor predicted."""
        shared = self.counts.diagonal()
        union = self.counts.sum(0) + self.counts.sum(1) - shared
        return shared.double() / union.clamp(min=1)

    def metrics(self) -> dict[str, float]:
        """'mIoU' over all classes, absent ones as 0 (torchmetrics leaves them out), and 'accuracy' of the pixels."""
        pixels = int(self.counts.sum())
        accuracy = int(self.counts.trace()) / pixels if pixels else 0.0
        return {'mIoU': float(self.ious().mean()), 'accuracy': accuracy}
