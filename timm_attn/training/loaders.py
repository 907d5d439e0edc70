"""timm's loaders with the settings of a model's data config and a recipe."""

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from timm.data import create_loader
from timm.data.loader import PrefetchLoader
from torch.utils.data import DataLoader, IterableDataset

from timm_attn.training.processes import ALONE, Processes
from timm_attn.training.recipe import Recipe, usable

Loader = PrefetchLoader | DataLoader[Any]
_INPUT = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class RecordingBatchSampler:
    """A batch sampler that keeps the indices of its batches until `take_batch` has them."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.pending: deque[list[int]] = deque()

    def __iter__(self) -> Iterator[Any]:
        self.pending.clear()
        for batch in self.sampler:
            self.pending.append([i[0] if isinstance(i, tuple) else i for i in batch])  # (index, size)
            yield batch

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to the samplers, which shuffle by it."""
        samplers: list[Any] = [self.sampler, getattr(self.sampler, 'sampler', None)]
        for sampler in samplers:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)


def eval_loader(
    dataset: Any,
    data_config: dict[str, Any],
    batch_size: int = 250,
    *,
    workers: int = 0,
    processes: Processes = ALONE,
) -> Loader:
    """Every image once, resized, cropped and normalised as the model's cfg says."""
    settings = {k: data_config[k] for k in _INPUT if k in data_config}
    return create_loader(dataset, batch_size=batch_size, **settings, **_common(workers, processes))


def validation_loader(
    dataset: Any, data_config: dict[str, Any], recipe: Recipe, processes: Processes = ALONE
) -> Loader:
    """The images of a recipe's validation, as eval_loader has them."""
    batch_size = recipe.validation_batch_size or recipe.batch_size
    with usable():
        return eval_loader(dataset, data_config, batch_size, workers=recipe.workers, processes=processes)


def train_loader(dataset: Any, data_config: dict[str, Any], recipe: Recipe, processes: Processes = ALONE) -> Loader:
    """Shuffled batches, without the last partial one, under the recipe's augmentation.

    Raises:
        ValueError: the images do not fill one batch.
    """
    settings = {k: data_config[k] for k in ('input_size', 'mean', 'std')}
    augmentation: dict[str, Any] = dict(
        no_aug=recipe.no_aug,
        train_crop_mode=recipe.train_crop_mode,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        interpolation=data_config['interpolation'] if recipe.no_aug else recipe.train_interpolation,
    )
    with usable():
        loader = create_loader(
            dataset,
            batch_size=recipe.batch_size,
            is_training=True,
            input_size_choices=recipe.train_img_sizes,
            batch_choice_seed=recipe.seed,
            num_batches=recipe.train_batches_per_epoch,
            pin_memory=recipe.pin_mem,
            **settings,
            **augmentation,
            **_common(recipe.workers, processes),
        )
    if not len(loader):
        batch = f'one batch of {recipe.batch_size} in each of {processes.count} processes'
        raise ValueError(f'{len(dataset)} training images do not fill {batch}: lower the batch_size.')
    if not isinstance(dataset, IterableDataset):
        _record_batches(loader)
    return loader


def set_epoch(loader: Any, epoch: int) -> None:
    """Passes the epoch on to the parts of a loader that shuffle by it."""
    for part in (loader.dataset, loader.batch_sampler):
        if hasattr(part, 'set_epoch'):
            part.set_epoch(epoch)


def take_batch(loader: Any) -> list[int] | None:
    """The indices of the next batch that the loader yielded; None for streamed data."""
    recorded = loader.batch_sampler
    return recorded.pending.popleft() if isinstance(recorded, RecordingBatchSampler) else None


def _record_batches(loader: PrefetchLoader) -> None:
    """Replaces the DataLoader in timm's loader by one that records its batches; a DataLoader's sampler is final."""
    made = loader.loader
    loader.loader = DataLoader(
        made.dataset,
        batch_sampler=RecordingBatchSampler(made.batch_sampler),
        num_workers=made.num_workers,
        collate_fn=made.collate_fn,
        pin_memory=made.pin_memory,
        worker_init_fn=made.worker_init_fn,
    )


def _common(workers: int, processes: Processes) -> dict[str, Any]:
    # Persistent workers have random states that no checkpoint holds.
    return dict(
        num_workers=workers,
        persistent_workers=False,
        device=torch.device(processes.device),
        distributed=processes.count > 1,
    )
