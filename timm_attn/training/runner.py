"""A recipe from the first image to the last epoch's weights."""

import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from safetensors.torch import save
from timm.data import resolve_data_config
from timm.utils import random_seed
from torch import Tensor, nn

from timm_attn.data.datasets import class_names
from timm_attn.files import replacing, write_csv, write_whole
from timm_attn.training import checkpoint, data
from timm_attn.training.confusion_picture import confusion_picture
from timm_attn.training.engine import Engine, NonFiniteLossError
from timm_attn.training.evaluate import confusion, evaluate
from timm_attn.training.fingerprint import fingerprints
from timm_attn.training.idle_keys import refuse_idle
from timm_attn.training.interrupt import noticing_ctrl_c
from timm_attn.training.loaders import Loader, eval_loader, train_loader
from timm_attn.training.lock import held
from timm_attn.training.logs import one_line, open_tensorboard
from timm_attn.training.processes import Processes, joined
from timm_attn.training.recipe import Recipe, import_modules, usable

LAST = 'last.pth.tar'  # timm's name


def train(
    recipe: Recipe,
    model_name: str,
    data_dir: Path,
    output: Path,
    *,
    resume: bool = False,
    head_only: bool = False,
    holdout: int = 0,
    skip_unreadable: bool = False,
    tensorboard: bool = False,
    confusion_matrix: bool = False,
) -> Path:
    """Trains a model and returns the file of its last epoch's weights; under torchrun every process calls this.

    Args:
        data_dir: the folder in which the recipe's splits lie, as timm's create_dataset takes them.
        output: gets summary.csv, one row per epoch, last.pth.tar, from which the run can go on, last.safetensors, and
            what else is asked for; each file appears only when complete.
        resume: go on where output/last.pth.tar ends, exactly, or begin if there is none.
        head_only: train the classifier alone, with the norms of the rest as they are.
        holdout: validate on that many images of the training split, without which it is trained, instead of on the
            validation split.
        skip_unreadable: take another image in the place of one that cannot be read, and count it.
        confusion_matrix: draw the last epoch's confusion.png.

    Raises:
        ValueError: the recipe, the data and the checkpoint do not fit together, or an image cannot be read.
        RuntimeError: another training works in the output; a loss is not finite, there is no space, or it was
            interrupted, and last.pth.tar is kept.
    """
    import_modules(recipe)
    refuse_idle(recipe, data_dir)
    with joined(recipe.device) as processes, held(output, processes):
        last = output / LAST
        if last.exists() and not resume:
            raise ValueError(f'{output} already has a run: go on with --resume, or choose another --output.')
        random_seed(recipe.seed, processes.rank)
        with usable():
            engine, tests, classes, images = _prepare(
                recipe, model_name, data_dir, processes, head_only, holdout, skip_unreadable
            )
        # what a resumed run must repeat, beside its recipe
        options = dict(head_only=head_only, holdout=holdout, class_names=classes, **images)
        rows, epochs = _resumed(engine, model_name, options, last) if resume and last.exists() else ([], engine.epochs)
        writer = open_tensorboard(output / 'tensorboard', len(rows) + 1) if tensorboard and processes.primary else None
        with noticing_ctrl_c() as engine.interrupted:
            _run(engine, epochs, tests, model_name, options, output, rows, writer)
        if confusion_matrix:
            model: Any = engine.task.get_eval_model()
            names = classes or [str(i) for i in range(model.num_classes)]
            counts = confusion(model, tests, len(names), processes, engine.autocast, recipe.channels_last)
            if processes.primary:
                with replacing(output / 'confusion.png') as file:
                    confusion_picture(counts.numpy(), names).save(file, 'PNG')
    return output / 'last.safetensors'


def _prepare(
    recipe: Recipe,
    model_name: str,
    data_dir: Path,
    processes: Processes,
    head_only: bool,
    holdout: int,
    skip_unreadable: bool,
) -> tuple[Engine, Loader, list[str] | None, dict[str, Any]]:
    """What trains the model, the batches that test it, the classes where the data says them, and its images."""
    with processes.one_first() if recipe.dataset_download else nullcontext():  # it alone downloads
        trained_on, tested_on = (
            data.held_out(recipe, data_dir, holdout, skip_unreadable=skip_unreadable)
            if holdout
            else data.open_both(recipe, data_dir, skip_unreadable=skip_unreadable)
        )
    images = fingerprints(trained_on, tested_on)
    classes = class_names(trained_on)
    model: Any = build(model_name, recipe, classes)
    model.to(device=processes.device)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)
    data_config = resolve_data_config(vars(recipe), model=model)
    loader = train_loader(trained_on, data_config, recipe, processes)
    batch_size = recipe.validation_batch_size or recipe.batch_size
    tests = eval_loader(tested_on, data_config, batch_size, workers=recipe.workers, processes=processes)
    return Engine(model, loader, recipe, processes, head_only), tests, classes, images


def _resumed(
    engine: Engine, model_name: str, options: Mapping[str, Any], last: Path
) -> tuple[list[dict[str, Any]], range]:
    """The rows of the epochs that a checkpoint has, into whose state it puts the engine, and the epochs left."""
    state = checkpoint.load(last)
    checkpoint.restore(engine, state, model_name, options, last)
    return state['rows'], range(state['epoch'] + 1, engine.epochs.stop)


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
        raise ValueError(f'{model_name!r} cannot be built with model_kwargs {recipe.model_kwargs}: {error}') from error
    labels = model.pretrained_cfg.get('label_names')
    if recipe.pretrained and classes and labels and list(labels) != classes:  # as many, but others
        model.reset_classifier(len(classes))
    built: nn.Module = model
    return built


def _run(
    engine: Engine,
    epochs: range,
    tests: Loader,
    model_name: str,
    options: Mapping[str, Any],
    output: Path,
    rows: list[dict[str, Any]],
    writer: Any,
) -> None:
    """Trains the epochs that are left, with a checkpoint after each, and one before the first of all."""
    last, primary = output / LAST, engine.processes.primary

    def save_state(epoch: int) -> None:
        state = checkpoint.state_of(engine, epoch, model_name, rows, options)
        if primary:
            checkpoint.save(last, state)

    if primary:
        write_whole(output / 'recipe.yaml', yaml.safe_dump(vars(engine.recipe)).encode())
        if rows:  # a kill may have come between the checkpoint and the table
            write_csv(output / 'summary.csv', rows)
    try:
        if not rows:
            save_state(epochs.start - 1)
        for epoch in epochs:
            row = engine.epoch(epoch)
            rows.append({**row, **_tested(engine, tests, row['epoch']), **_skipped(engine, tests)})
            save_state(epoch)
            if primary:
                _report(output, rows, writer)
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f'{error} {_kept(last, rows)}.') from error
    except KeyboardInterrupt:
        raise RuntimeError(f'Interrupted. {_kept(last, rows)}; --resume goes on from there.') from None
    if primary:
        _write_weights(output, engine, model_name, options)
    engine.processes.gather(None)  # until all is written


def _tested(engine: Engine, tests: Loader, number: int) -> dict[str, float]:
    """The validation metrics of an epoch, of the moving average too where there is one."""

    def test(model: Any) -> dict[str, float]:
        return evaluate(model, tests, engine.processes, engine.autocast, engine.recipe.channels_last)

    metrics = test(engine.task.get_eval_model())
    if not math.isfinite(metrics['loss']):  # the last update of the epoch
        raise NonFiniteLossError(f'The validation loss is {metrics["loss"]} after epoch {number}.')
    found = dict(val_loss=metrics['loss'], top1=round(metrics['top1'], 2), top5=round(metrics['top5'], 2))
    if engine.task.has_ema():
        found['top1_ema'] = round(test(engine.task.get_eval_model(ema=True))['top1'], 2)
    return found


def _skipped(engine: Engine, tests: Loader) -> dict[str, int]:
    return dict(unreadable=sum(data.unreadable(loader.dataset, engine.processes) for loader in (engine.loader, tests)))


def _report(output: Path, rows: list[dict[str, Any]], writer: Any) -> None:
    print(one_line(rows[-1]), flush=True)
    write_csv(output / 'summary.csv', rows)
    if writer is not None:
        for name, value in rows[-1].items():
            writer.add_scalar(name, value, rows[-1]['epoch'])
        writer.flush()


def _kept(last: Path, rows: list[dict[str, Any]]) -> str:
    return f'{last} has the run up to the end of epoch {rows[-1]["epoch"]}' if rows else f'{last} has its beginning'


def _write_weights(output: Path, engine: Engine, model_name: str, options: Mapping[str, Any]) -> None:
    states: dict[str, Mapping[str, Tensor]] = {
        **engine.task.get_checkpoint_state(),
        **engine.task.get_checkpoint_state(ema=True),
    }
    said = dict(recipe=vars(engine.recipe), options=options)
    metadata = dict(format='pt', arch=model_name, **{key: json.dumps(value) for key, value in said.items()})
    for key, state in states.items():
        name = 'last.safetensors' if key == 'state_dict' else 'last_ema.safetensors'
        write_whole(output / name, save({k: v.cpu().contiguous() for k, v in state.items()}, metadata))
