"""A recipe from the first image to the last epoch's weights."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.utils import random_seed
from torch import nn

from timm_attn.data.datasets import class_names
from timm_attn.files import write_csv
from timm_attn.training import splits
from timm_attn.training.engine import Engine, NonFiniteLossError
from timm_attn.training.epochs import LAST, Epochs, resumed
from timm_attn.training.evaluate import confusion, evaluate
from timm_attn.training.fingerprint import fingerprints
from timm_attn.training.idle_keys import refuse_idle
from timm_attn.training.interrupt import noticing_ctrl_c
from timm_attn.training.loaders import Loader, train_loader, validation_loader
from timm_attn.training.lock import held
from timm_attn.training.logs import open_tensorboard
from timm_attn.training.processes import Processes, joined
from timm_attn.training.recipe import Recipe, import_modules, usable
from timm_attn.training.run_config import Run


def train(
    recipe: Recipe,
    model_name: str,
    data_dir: Path,
    output: Path,
    *,
    resume: bool = False,
    head_only: bool = False,
    holdout: float | None = None,
    skip_unreadable: bool = False,
    tensorboard: bool = False,
    confusion_matrix: bool = False,
) -> Path:
    """Trains a model and returns the file of its last epoch's weights; under torchrun every process calls this.

    Args:
        data_dir: the folder in which the recipe's splits lie, as timm's create_dataset takes them; with `holdout` also
            a folder of class folders.
        output: gets summary.csv, one row per epoch, last.pth.tar, from which the run can go on, last.safetensors, and
            what else is asked for; each file appears only when complete.
        resume: go on where output/last.pth.tar ends, exactly, or begin if there is none.
        head_only: train the classifier alone, with the norms of the rest as they are.
        holdout: validate on that many images of the training split, or that share of them, which are then not trained
            on, instead of on the validation split.
        skip_unreadable: take another image in the place of one that cannot be read, and count it.
        confusion_matrix: write the last epoch's confusion.csv, one row per true class, one column per predicted class.

    Raises:
        ValueError: the recipe, the data and the checkpoint do not fit together, or an image cannot be read.
        RuntimeError: another training works in the output; a loss is not finite, there is no space, or it was
            interrupted, and last.pth.tar is kept.
    """
    import_modules(recipe)
    if holdout is not None:
        splits.check_holdout(holdout)
    refuse_idle(recipe, data_dir)
    splits.refuse_output(output, recipe, data_dir, held_out=holdout is not None)
    with joined(recipe.device) as processes, held(output, processes):
        last = output / LAST
        if last.exists() and not resume:
            raise ValueError(f'{output} already has a run: go on with --resume, or choose another --output.')
        random_seed(recipe.seed, processes.rank)
        with splits.downloading(recipe, processes):
            images: tuple[Any, Any] = (
                splits.open_both(recipe, data_dir, skip_unreadable=skip_unreadable)
                if holdout is None
                else splits.held_out(recipe, data_dir, holdout, skip_unreadable=skip_unreadable)
            )
        run = Run(model_name, recipe, head_only, holdout or 0, class_names(images[0]), fingerprints(*images))
        engine, tests = _prepare(run, *images, processes)
        run = run.of(engine.model)
        rows = resumed(engine, run, last) if resume and last.exists() else []
        writer = open_tensorboard(output / 'tensorboard', len(rows) + 1) if tensorboard and processes.primary else None
        validation = _Validation(run, engine, tests)
        with noticing_ctrl_c() as engine.interrupted:
            Epochs(run, engine, output, rows, validation.of_epoch, writer).finish()
        if confusion_matrix:
            validation.write_confusion(output)
    return output / 'last.safetensors'


def _prepare(run: Run, trained_on: Any, tested_on: Any, processes: Processes) -> tuple[Engine, Loader]:
    """What trains the model of a run, and the batches that validate it."""
    recipe = run.recipe
    model: Any = build(run.model, recipe, run.class_names)
    model.to(processes.device, memory_format=torch.channels_last if recipe.channels_last else None)
    with usable():
        data_config = resolve_data_config(vars(recipe), model=model)
    loader = train_loader(trained_on, data_config, recipe, processes)
    tests = validation_loader(tested_on, data_config, recipe, processes)
    return Engine(model, loader, recipe, processes, run.head_only), tests


def build(model_name: str, recipe: Recipe, classes: list[str] | None) -> nn.Module:
    """The model of a recipe, as timm's train.py builds it, but with a new head where its classes are not the images'.

    Raises:
        ValueError: the recipe has another number of classes than the images, or options that the model lacks.
        RuntimeError: there is no such model.
    """
    if recipe.num_classes is not None and classes is not None and len(classes) != recipe.num_classes:
        raise ValueError(
            f'The recipe has num_classes {recipe.num_classes}, but the images have {len(classes)} classes: '
            f'{", ".join(classes[:10])}{", ..." if len(classes) > 10 else ""}.'
        )
    with usable():
        try:
            model: Any = timm.create_model(
                model_name,
                pretrained=recipe.pretrained,
                in_chans=recipe.input_size[0] if recipe.input_size else 3,
                num_classes=recipe.num_classes or (len(classes) if classes else None),
                drop_rate=recipe.drop,
                **recipe.model_kwargs,
            )
        except TypeError as error:
            options = f'model_kwargs {recipe.model_kwargs}'
            raise ValueError(f'{model_name!r} cannot be built with {options}: {error}') from error
    labels = model.pretrained_cfg.get('label_names')
    if recipe.pretrained and classes and labels and list(labels) != classes:  # as many, but others
        model.reset_classifier(len(classes))
    built: nn.Module = model
    return built


@dataclass(frozen=True)
class _Validation:
    """The validation of a run."""

    run: Run
    engine: Engine
    tests: Loader

    def of_epoch(self, number: int) -> dict[str, Any]:
        """The metrics of an epoch, also those of the averaged weights where there are some, and unreadable images."""
        engine = self.engine

        def metrics_of(model: Any) -> dict[str, float]:
            return evaluate(model, self.tests, engine.processes, engine.autocast, self.run.recipe.channels_last)

        metrics = metrics_of(engine.task.get_eval_model())
        if not math.isfinite(metrics['loss']):  # the last update of the epoch
            raise NonFiniteLossError(f'The validation loss is {metrics["loss"]} after epoch {number}.')
        found = dict(val_loss=metrics['loss'], top1=round(metrics['top1'], 2), top5=round(metrics['top5'], 2))
        if engine.task.has_ema():
            found['top1_ema'] = round(metrics_of(engine.task.get_eval_model(ema=True))['top1'], 2)
        return {**found, 'unreadable': self._unreadable()}

    def _unreadable(self) -> int:
        loaders, processes = (self.engine.loader, self.tests), self.engine.processes
        return sum(splits.unreadable(loader.dataset, processes) for loader in loaders)

    def write_confusion(self, output: Path) -> None:
        """Writes confusion.csv."""
        model: Any = self.engine.task.get_eval_model()
        names = self.run.class_names or [str(i) for i in range(model.num_classes)]
        processes, recipe = self.engine.processes, self.run.recipe
        counts = confusion(model, self.tests, len(names), processes, self.engine.autocast, recipe.channels_last)
        if processes.primary:
            table = zip(names, counts.tolist(), strict=True)
            rows = [{'true \\ predicted': name, **dict(zip(names, row, strict=True))} for name, row in table]
            write_csv(output / 'confusion.csv', rows)
