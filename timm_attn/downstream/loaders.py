"""Batches of a task's samples: shuffled for training, each sample once for evaluation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from timm_attn.downstream.data.samples import Samples
from timm_attn.downstream.recipe import TaskRecipe
from timm_attn.training.loaders import RecordingBatchSampler
from timm_attn.training.processes import Processes

Collate = Callable[[Sequence[Any]], Any]


def train_loader(samples: Samples, collate: Collate, recipe: TaskRecipe, processes: Processes) -> DataLoader[Any]:
    """Shuffled batches of this process, without the last partial one.

    Raises:
        ValueError: the samples do not fill one batch in each process.
    """
    data: Any = samples
    share: Any = DistributedSampler(data, processes.count, processes.rank, seed=recipe.seed, drop_last=True)
    batches = RecordingBatchSampler(BatchSampler(share, recipe.batch_size, drop_last=True))
    if not len(batches):
        batch = f'one batch of {recipe.batch_size} in each of {processes.count} processes'
        raise ValueError(f'{len(samples)} training images do not fill {batch}: lower the batch_size.')
    # not persistent: such workers have random states that no checkpoint holds
    return DataLoader(data, batch_sampler=batches, collate_fn=collate, num_workers=recipe.workers)


def validation_loader(samples: Samples, collate: Collate, recipe: TaskRecipe, processes: Processes) -> DataLoader[Any]:
    """Every sample once, in one of the processes."""
    data: Any = samples
    share = range(processes.rank, len(samples), processes.count)
    size = recipe.validation_batch_size or recipe.batch_size
    return DataLoader(data, size, sampler=share, collate_fn=collate, num_workers=recipe.workers)


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch with all its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(on_device(value, device) for value in batch)
    return batch
