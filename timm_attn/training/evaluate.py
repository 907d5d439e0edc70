"""Top-1 accuracy of a model."""

from collections.abc import Iterable
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from timm_attn.training.loaders import eval_loader


@torch.inference_mode()
def top1(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of images whose highest logit is their label, in %; the model is left in evaluation mode."""
    model.eval()
    correct = seen = 0
    for images, labels in batches:
        correct += int((model(images).argmax(dim=1) == labels).sum())
        seen += len(labels)
    if not seen:
        raise ValueError('There are no images to evaluate.')
    return 100 * correct / seen


def top1_on(model: nn.Module, dataset: Any) -> float:
    """Top-1 in % on a dataset of (image, label), under the preprocessing of the model's own cfg."""
    return top1(model, eval_loader(dataset, resolve_model_data_config(model)))
