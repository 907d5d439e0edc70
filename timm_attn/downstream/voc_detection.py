"""Detection on PASCAL VOC as a task (BAM Table 7): SSD300 and StairNet, trained as SSD is, measured as VOC 2007 is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from timm_attn.downstream.data.samples import DataSet, Sample, Samples
from timm_attn.downstream.data.voc import CLASSES, Voc
from timm_attn.downstream.layers import is_name, split_name
from timm_attn.downstream.metrics.voc import Found, Truth, mean_average_precision
from timm_attn.downstream.recipe import SPLITS, TaskRecipe
from timm_attn.downstream.ssd import ssd300
from timm_attn.downstream.stairnet import stairnet300
from timm_attn.training.processes import Processes

NETS = ('ssd300', 'stairnet300')
COLUMNS = ('mAP',)
_FILL = (123, 117, 104)  # of 255: what is around a picture that is zoomed out


def knows(name: str) -> bool:
    """Whether a name is ssd300, stairnet300 or stairnet300_ATTENTION."""
    return is_name(name, NETS, plain=('ssd300',))


def build(name: str, recipe: TaskRecipe, classes: Sequence[str]) -> nn.Module:
    """The detector of a recipe."""
    net, attention = split_name(name, NETS, plain=('ssd300',))
    options: dict[str, Any] = dict(pretrained_backbone=recipe.pretrained, **recipe.task_kwargs)
    if net == 'ssd300':
        return ssd300(len(classes) + 1, **options)
    return stairnet300(len(classes) + 1, attention, **options)


class Augmented:
    """Samples with SSD's changes: colours, zooming out, crops that keep an object, flips."""

    def __init__(self, samples: Samples, hflip: float) -> None:
        self.samples, self.classes = samples, samples.classes
        self.name, self.fingerprint = samples.name, samples.fingerprint
        self.change = v2.Compose(
            [
                v2.RandomPhotometricDistort(),
                v2.RandomZoomOut(fill=dict.fromkeys((tv_tensors.Image,), [value / 255 for value in _FILL])),
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(hflip),
                v2.SanitizeBoundingBoxes(),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, target = self.samples[index]
        changed: Sample = self.change(tv_tensors.Image(image), {key: target[key] for key in ('boxes', 'labels')})
        return changed


def _voc(recipe: TaskRecipe, folder: Path, training: bool) -> Samples:
    if not training:
        return Voc(folder, recipe.val_split)
    return Augmented(Voc(folder, recipe.train_split, training=True), recipe.hflip)


DATA = {'voc': DataSet(_voc, (*SPLITS, 'hflip'))}


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[Any], classes: int, processes: Processes, autocast: Callable[[], Any]
) -> dict[str, float]:
    """VOC07's mAP and the AP of each class in %, over the pictures of all processes."""
    seen: list[tuple[int, Found, Truth]] = []
    for images, targets in batches:
        with autocast():
            outputs = model(images)
        seen += [(t['image_id'], _found(o), _truth(t)) for t, o in zip(targets, outputs, strict=True)]
    shares = processes.gather(seen)
    pictures = sorted((picture for share in shares for picture in share), key=lambda picture: picture[0])
    each = mean_average_precision([f for _, f, _ in pictures], [t for _, _, t in pictures], CLASSES)
    return {name: 100 * value for name, value in each.items()}


def _found(output: Mapping[str, Tensor]) -> Found:
    return Found(_numbers(output['boxes']), _numbers(output['labels']).astype(np.int64), _numbers(output['scores']))


def _truth(target: Mapping[str, Tensor]) -> Truth:
    return Truth(
        _numbers(target['boxes']), _numbers(target['labels']).astype(np.int64), target['difficult'].cpu().numpy()
    )


def _numbers(values: Tensor) -> Any:
    return values.detach().double().cpu().numpy()
