"""The epochs of a downstream task, with timm's optimiser, schedule and loss scaler."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from timm.layers import convert_sync_batchnorm
from timm.task import TrainingTask
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from timm_attn.downstream.loaders import on_device
from timm_attn.downstream.recipe import TaskRecipe
from timm_attn.downstream.tasks import Task
from timm_attn.training.engine import (
    NonFiniteLossError,
    autocast_of,
    backward,
    make_optimizer,
    make_scheduler,
    scaler_of,
)
from timm_attn.training.loaders import set_epoch, take_batch
from timm_attn.training.processes import ALONE, Processes
from timm_attn.training.recipe import usable


class _Losses(TrainingTask):
    """timm's holder of a model in training, whose loss is a task's."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], processes: Processes) -> None:
        super().__init__(device=processes.device, verbose=False)
        self.trainable_module = model
        self.loss = loss
        if processes.count > 1:
            ids = [processes.device] if processes.device.type == 'cuda' else None
            self.trainable_module = DistributedDataParallel(model, device_ids=ids)

    def forward(self, batch: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return dict(loss=self.loss(self.trainable_module, batch))


class Loop:
    """A model with its optimiser, schedule and loss scaler, on the batches of a task."""

    def __init__(
        self, model: nn.Module, task: Task, loader: DataLoader[Any], recipe: TaskRecipe, processes: Processes = ALONE
    ) -> None:
        self.recipe, self.processes, self.loader = recipe, processes, loader
        if recipe.sync_bn and processes.count > 1:
            model = convert_sync_batchnorm(model)
        self.model = model.to(processes.device)
        self.columns = frozenset(('epoch', 'lr', 'loss', 'seconds', *task.columns))
        updates = len(loader)
        with usable():
            self.task = _Losses(self.model, task.loss, processes)
            self.optimizer = make_optimizer(self.model, recipe)
            warmup: Any = recipe.warmup_updates / updates or recipe.warmup_epochs  # timm takes parts of epochs, too
            timed = replace(recipe, warmup_epochs=warmup)
            self.scheduler, self.epochs = make_scheduler(self.optimizer, timed, updates)
        if not self.epochs:
            raise ValueError(
                f'There is no epoch to train: start_epoch is {recipe.start_epoch}, epochs {recipe.epochs}.'
            )
        self.autocast = autocast_of(recipe, processes.device)
        self.scaler = scaler_of(recipe, processes.device)
        self.interrupted: Callable[[], bool] = lambda: False  # asked before each step

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch: its number from 1, first learning rate, mean loss and seconds."""
        start, losses, count = time.perf_counter(), 0.0, len(self.loader)
        update, number = epoch * count, epoch - self.epochs.start + 1
        if epoch:
            self.scheduler.step(epoch)
            self.scheduler.step_update(update)
        set_epoch(self.loader, epoch)
        self.model.train()
        lr = self.optimizer.param_groups[0]['lr']
        quiet = None if self.processes.primary else True  # None: on a terminal alone
        bar = tqdm(self.loader, desc=f'epoch {number}/{len(self.epochs)}', leave=False, disable=quiet)
        for step, batch in enumerate(bar, 1):
            if self.interrupted():
                raise KeyboardInterrupt
            chosen = take_batch(self.loader) or []
            value = self._step(on_device(batch, self.processes.device))
            if not math.isfinite(value):
                names = ', '.join(self.loader.dataset.name(i) for i in chosen)  # type: ignore[attr-defined]
                raise NonFiniteLossError(
                    f'The loss is {value} at step {step} of epoch {number}. The images of the batch: {names}.'
                )
            losses += value
            bar.set_postfix(loss=f'{value:.3f}', refresh=False)
            self.scheduler.step_update(num_updates=update + step)
        if self.processes.count > 1:
            distribute_bn(self.model, self.processes.count, self.recipe.dist_bn == 'reduce')
        mean = sum(self.processes.gather(losses / count)) / self.processes.count
        return dict(epoch=number, lr=lr, loss=mean, seconds=round(time.perf_counter() - start, 1))

    def _step(self, batch: Any) -> float:
        """The loss of a batch; steps the optimiser if it is finite."""
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.task(batch)['loss']
        value = loss.item()
        if math.isfinite(value):
            backward(self, loss)
        return value
