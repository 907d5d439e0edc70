"""The epochs of a recipe, with timm's task, optimiser, schedule, loss scaler and moving average."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler_factory import scheduler_kwargs
from timm.task import ClassificationTask
from timm.utils import NativeScaler, dispatch_clip_grad, distribute_bn
from torch import Tensor, nn
from tqdm import tqdm

from timm_attn.param_groups import scale_attention
from timm_attn.training.evaluate import check_labels
from timm_attn.training.loaders import Loader, set_epoch, take_batch
from timm_attn.training.processes import ALONE, Processes
from timm_attn.training.recipe import Recipe, usable
from timm_attn.training.splits import names_of

# Of a row of a run's table; with averaged weights also top1_ema.
COLUMNS = frozenset(
    ('epoch', 'lr', 'loss', 'train_top1', 'train_top5', 'seconds', 'val_loss', 'top1', 'top5', 'unreadable')
)


class NonFiniteLossError(RuntimeError):
    """A NaN or infinite loss; the message names the images of the batch."""


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe, as timm's train.py makes it, with the learning rate of the attention layers scaled.

    Raises:
        ValueError: the model has no attention to train with it, or the optimiser cannot have two learning rates.
    """
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(recipe), **recipe.opt_kwargs)
    if recipe.attention_lr_scale != 1:
        scale_attention(optimizer, model, recipe.attention_lr_scale)
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int) -> tuple[Any, range]:
    """The learning-rate schedule of a recipe, and the epochs it runs over, as timm's train.py makes them."""
    scheduler, stop = create_scheduler_v2(optimizer, **scheduler_kwargs(recipe), updates_per_epoch=updates_per_epoch)
    return scheduler, range(recipe.start_epoch or 0, stop)


def autocast_of(recipe: Recipe, device: torch.device) -> Callable[[], Any]:
    """The autocast context of a recipe's forward passes."""
    return partial(torch.autocast, device.type, dtype=getattr(torch, recipe.amp_dtype)) if recipe.amp else nullcontext


def scaler_of(recipe: Recipe, device: torch.device) -> NativeScaler | None:
    """The loss scaler of a recipe, for float16 on a GPU."""
    scaled = recipe.amp and device.type == 'cuda' and recipe.amp_dtype == 'float16'
    return NativeScaler(device=device.type) if scaled else None


class Steps(Protocol):
    """What steps an optimiser needs."""

    task: Any  # timm's
    optimizer: torch.optim.Optimizer
    scaler: NativeScaler | None

    @property
    def recipe(self) -> Recipe: ...


def backward(engine: Steps, loss: Tensor, is_update: bool = True) -> None:
    """Backpropagates a loss, and steps the optimiser if `is_update`."""
    clip, parameters = engine.recipe.clip_grad, engine.task.get_clip_parameters()
    if engine.scaler is not None:
        engine.scaler(loss, engine.optimizer, clip_grad=clip, parameters=parameters, need_update=is_update)
        return
    loss.backward()
    if is_update:
        if clip is not None:
            dispatch_clip_grad(parameters, value=clip)
        engine.optimizer.step()


class Engine:
    """A model with its optimiser, schedule, loss scaler and moving average."""

    def __init__(
        self, model: nn.Module, loader: Loader, recipe: Recipe, processes: Processes = ALONE, head_only: bool = False
    ) -> None:
        self.recipe, self.processes, self.loader = recipe, processes, loader
        device = processes.device
        if recipe.sync_bn and processes.count > 1:
            model = convert_sync_batchnorm(model)
        self.model = model
        self.classes: Any = model.num_classes
        self.frozen = _freeze_body(model) if head_only else []
        with usable():
            self.task = ClassificationTask(
                model, criterion_kwargs=dict(smoothing=recipe.smoothing), device=device, verbose=False
            )
            self.optimizer = make_optimizer(model, recipe)
            if recipe.model_ema:
                self.task.setup_ema(decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup)
            if recipe.torchcompile:
                self.task.compile(backend=recipe.torchcompile)
            if processes.count > 1:
                ids = [device] if device.type == 'cuda' else None
                # torch deprecates the argument without a substitute for False
                options = dict(broadcast_buffers=False) if recipe.no_ddp_bb else {}
                self.task.prepare_distributed(device_ids=ids, **options)
        self.autocast = autocast_of(recipe, device)
        self.scaler = scaler_of(recipe, device)
        self.interrupted: Callable[[], bool] = lambda: False  # asked before each step
        self.updates = -(-len(loader) // recipe.grad_accum_steps)  # per epoch
        with usable():
            self.scheduler, self.epochs = make_scheduler(self.optimizer, recipe, self.updates)
        if not self.epochs:
            raise ValueError(
                f'There is no epoch to train: start_epoch is {recipe.start_epoch}, epochs {recipe.epochs}.'
            )

    @property
    def columns(self) -> frozenset[str]:
        """Of a row of a run's table."""
        return COLUMNS | ({'top1_ema'} if self.task.has_ema() else set())

    def to_epoch(self, epoch: int) -> None:
        """Sets the schedule and the shuffling to the start of an epoch."""
        if epoch:
            self.scheduler.step(epoch)
            self.scheduler.step_update(epoch * self.updates)
        set_epoch(self.loader, epoch)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch: its number from 1, first learning rate, mean loss, accuracies in %, and seconds."""
        start, losses, steps = time.perf_counter(), 0.0, 0
        self.to_epoch(epoch)
        self._train_mode()
        lr = self.optimizer.param_groups[0]['lr']
        evaluator = self.task.create_evaluator()
        number, of = epoch - self.epochs.start + 1, len(self.epochs)
        quiet = None if self.processes.primary else True  # None: on a terminal alone
        bar = tqdm(self.loader, desc=f'epoch {number}/{of}', leave=False, disable=quiet)
        update = epoch * self.updates
        self.optimizer.zero_grad()
        for step, (images, labels, share, is_update) in enumerate(self._grouped(bar)):
            if self.interrupted():
                raise KeyboardInterrupt
            batch = take_batch(self.loader)
            if batch is None:
                check_labels(labels, self.classes)
            value, output = self._step(images, labels, share, is_update)
            if not math.isfinite(value):
                raise NonFiniteLossError(self._not_finite(value, number, step, batch))
            evaluator.update(output, labels)
            losses, steps = losses + value, steps + 1
            bar.set_postfix(loss=f'{value:.3f}', refresh=False)
            if is_update:
                update += 1
                self.optimizer.zero_grad()
                self.task.update_ema(step=update)
                self.scheduler.step_update(num_updates=update)
        count = self.processes.count
        if count > 1:
            for ema in {False, self.task.has_ema()}:
                distribute_bn(self.task.get_trainable_module(ema=ema), count, self.recipe.dist_bn == 'reduce')
        seen = evaluator.compute(distributed=count > 1)
        mean = sum(self.processes.gather(losses / max(steps, 1))) / count  # a stream may end early
        seconds = round(time.perf_counter() - start, 1)
        return dict(epoch=number, lr=lr, loss=mean, train_top1=seen['top1'], train_top5=seen['top5'], seconds=seconds)

    def _grouped(self, batches: Any) -> Iterator[tuple[Tensor, Tensor, float, bool]]:
        """The batches, each with its weight in the gradient of its update, and whether it completes the update."""
        group, count = self.recipe.grad_accum_steps, len(self.loader)
        whole = count - count % group
        for i, (images, labels) in enumerate(batches):
            if self.recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            size = group if i < whole else count - whole
            yield images, labels, 1 / size, i == count - 1 or (i + 1) % group == 0

    def _step(self, images: Tensor, labels: Tensor, share: float, is_update: bool) -> tuple[float, Tensor]:
        """The loss of a batch and its logits; backpropagates a finite loss, and steps the optimiser if `is_update`."""
        with nullcontext() if is_update else self.task.no_sync():
            with self.autocast():
                result = self.task(images, labels)
            value = result['loss'].item()
            if math.isfinite(value):
                backward(self, result['loss'] * share if share < 1 else result['loss'], is_update)
        return value, result['output']

    def _train_mode(self) -> None:
        module: Any = self.task.get_trainable_module()
        module.train()
        for module in self.frozen:
            module.eval()

    def _not_finite(self, value: float, number: int, step: int, batch: list[int] | None) -> str:
        names = 'unknown, the data is streamed' if batch is None else ', '.join(names_of(self.loader.dataset, batch))
        return f'The loss is {value} at step {step + 1} of epoch {number}. The images of the batch: {names}.'


def _freeze_body(model: Any) -> list[nn.Module]:
    """Freezes all parameters but the classifier's; returns the modules that must stay in evaluation mode."""
    classifier = model.get_classifier()
    trained = {id(p) for p in classifier.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    kept = {id(m) for m in classifier.modules()}
    return [m for m in model.modules() if not any(id(inner) in kept for inner in m.modules())]
