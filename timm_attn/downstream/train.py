"""A downstream recipe from the first picture to the last epoch's weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.utils import random_seed
from torch import nn
from torch.utils.data import DataLoader

from timm_attn.downstream.data.samples import Samples
from timm_attn.downstream.loaders import on_device, train_loader, validation_loader
from timm_attn.downstream.loop import Loop
from timm_attn.downstream.recipe import TaskRecipe
from timm_attn.downstream.tasks import Task, task_of
from timm_attn.training.engine import autocast_of
from timm_attn.training.epochs import LAST, Epochs, resumed
from timm_attn.training.fingerprint import IMAGES
from timm_attn.training.interrupt import noticing_ctrl_c
from timm_attn.training.lock import held
from timm_attn.training.processes import ALONE, Processes, joined
from timm_attn.training.recipe import import_modules, usable
from timm_attn.training.run_config import Run


def train(recipe: TaskRecipe, model_name: str, data_dir: Path, output: Path, *, resume: bool = False) -> Path:
    """Trains a model and returns the file of its last epoch's weights; under torchrun every process calls this.

    Args:
        model_name: the backbone, of timm or of the zoo.
        data_dir: the folder of the recipe's data set; scenes do not read it.
        output: gets summary.csv, one row per epoch, last.pth.tar, from which the run can go on, recipe.yaml and
            last.safetensors; each file appears only when complete.
        resume: go on where output/last.pth.tar ends, exactly, or begin if there is none.

    Raises:
        FileNotFoundError, ValueError: the recipe, the data and the checkpoint do not fit together.
        RuntimeError: another training works in the output; a loss is not finite, there is no space, or it was
            interrupted, and last.pth.tar is kept.
    """
    import_modules(recipe)
    task = task_of(recipe)
    with joined(recipe.device) as processes, held(output, processes):
        last = output / LAST
        if last.exists() and not resume:
            raise ValueError(f'{output} already has a run: go on with --resume, or choose another --output.')
        random_seed(recipe.seed, processes.rank)
        trained, tested = open_both(task, recipe, data_dir)
        with usable():
            model = task.build(model_name, recipe, trained.classes)
        recipe = replace(recipe, **getattr(model, 'settings', {}))
        images = dict(zip(IMAGES, (trained.fingerprint(), tested.fingerprint()), strict=True))
        run = Run(model_name, recipe, head_only=False, holdout=0, class_names=list(trained.classes), images=images)
        loop = Loop(model, task, train_loader(trained, task.collate, recipe, processes), recipe, processes)
        tests = validation_loader(tested, task.collate, recipe, processes)
        rows = resumed(loop, run, last) if resume and last.exists() else []

        def measured(number: int) -> dict[str, float]:
            metrics = measure(loop.model, task, tests, recipe, len(trained.classes), processes)
            return {key: metrics[key] for key in task.columns}

        with noticing_ctrl_c() as loop.interrupted:
            Epochs(run, loop, output, rows, measured).finish()
    return output / 'last.safetensors'


def open_both(task: Task, recipe: TaskRecipe, data_dir: Path) -> tuple[Samples, Samples]:
    """The samples for training and for validation.

    Raises:
        ValueError: their classes differ.
    """
    trained, tested = (task.data[recipe.dataset].open(recipe, data_dir, training) for training in (True, False))
    if list(trained.classes) != list(tested.classes):
        differing = sorted({*trained.classes} ^ {*tested.classes}) or 'their order'
        raise ValueError(f'The classes of training and validation differ: {differing}.')
    return trained, tested


def measure(
    model: nn.Module,
    task: Task,
    tests: DataLoader[Any],
    recipe: TaskRecipe,
    classes: int,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """The metrics of a model, which is left in evaluation mode."""
    model.eval()

    def batches() -> Iterator[Any]:
        return (on_device(batch, processes.device) for batch in tests)

    return task.evaluate(model, batches(), classes, processes, autocast_of(recipe, processes.device))
