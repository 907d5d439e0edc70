"""Accuracy and confusion of a model on images."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from timm.task import ClassificationEvaluator, evaluation_sample_limit
from torch import Tensor, nn

from timm_attn.data.datasets import IGNORE_INDEX
from timm_attn.training.processes import ALONE, Processes


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Any,
    processes: Processes = ALONE,
    autocast: Callable[[], Any] = nullcontext,
    channels_last: bool = False,
) -> dict[str, float]:
    """Mean cross-entropy, top-1 and top-5 in %, and the number of images, over all processes.

    The model is left in evaluation mode.
    """
    evaluator, seen = ClassificationEvaluator(processes.device), 0
    for output, labels in _outputs(model, loader, autocast, channels_last):
        check_labels(labels, output.shape[1])
        evaluator.update(output, labels)
        seen += len(labels)
    images = sum(processes.gather(seen))
    if not images:
        raise ValueError('There are no images to evaluate.')
    metrics = evaluator.compute(distributed=processes.count > 1)
    return {**{name: metrics[name] for name in ('loss', 'top1', 'top5')}, 'images': images}


@torch.inference_mode()
def confusion(
    model: nn.Module,
    loader: Any,
    classes: int,
    processes: Processes = ALONE,
    autocast: Callable[[], Any] = nullcontext,
    channels_last: bool = False,
) -> Tensor:
    """The number of images of each true class (row) and predicted class (column), over all processes."""
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for output, labels in _outputs(model, loader, autocast, channels_last):
        pairs = labels * classes + output.argmax(dim=1)
        counts += torch.bincount(pairs.cpu(), minlength=len(counts))
    return processes.all_reduce_sum(counts).cpu().view(classes, classes)


def check_labels(labels: Tensor, classes: int) -> None:
    """Raises ValueError for a label that is no class of the model; only streamed data can have one."""
    if int(labels.max()) >= classes:
        raise ValueError(f'An image has the label {int(labels.max())}, but the model has {classes} classes.')


def _outputs(
    model: nn.Module, loader: Any, autocast: Callable[[], Any], channels_last: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The outputs of each batch and its labels, without ignored and repeated images."""
    model.eval()
    seen, limit = 0, evaluation_sample_limit(loader)
    for images, labels in loader:
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast():
            output = model(images)
        kept = labels != IGNORE_INDEX
        if limit is not None and seen + len(labels) > limit:  # the rest repeats images of another process
            kept[max(0, limit - seen) :] = False
        seen += len(labels)
        if kept.any():
            yield output[kept], labels[kept]
