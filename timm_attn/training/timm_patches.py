"""What the papers' recipes need and the flags of timm's train.py cannot say; a recipe names this in `device_modules`.

Importing it adds `train_crop_mode: padN` (zero-padding by N pixels, then a random crop of the image size, as in the
CIFAR experiments of the papers) to timm's training transforms, and lets train.py run under torchrun on CPUs, where it
gives DistributedDataParallel a device id that only GPUs have.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from timm.data import transforms_factory
from timm.task import ClassificationTask
from torchvision import transforms


def _with_padding(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(img_size: Any = 224, *args: Any, train_crop_mode: str | None = None, **kwargs: Any) -> Any:
        match = re.fullmatch(r'pad(\d+)', train_crop_mode or '')
        if match is None:
            return original(img_size, *args, train_crop_mode=train_crop_mode, **kwargs)
        compose = original(img_size, *args, **kwargs)
        if not isinstance(compose, transforms.Compose):
            raise ValueError(f'train_crop_mode {train_crop_mode!r} cannot be combined with augmentation splits.')
        crop = transforms.RandomCrop(img_size, padding=int(match[1]))
        return transforms.Compose([crop, *compose.transforms[1:]])  # in the place of the random resized crop

    return wrapped


def _without_cpu_ids(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(self: ClassificationTask, device_ids: list[Any] | None = None, **kwargs: Any) -> Any:
        gpus = [i for i in device_ids or () if not (isinstance(i, torch.device) and i.type == 'cpu')]
        return original(self, device_ids=gpus or None, **kwargs)

    return wrapped


transforms_factory.transforms_imagenet_train = _with_padding(transforms_factory.transforms_imagenet_train)
ClassificationTask.prepare_distributed = _without_cpu_ids(  # type: ignore[method-assign]
    ClassificationTask.prepare_distributed
)
