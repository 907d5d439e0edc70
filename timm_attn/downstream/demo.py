"""The demo of the downstream tasks: two detectors learn on scenes of bundled pictures, and show what they find."""

import time
from dataclasses import replace
from pathlib import Path

import torch
from timm.utils import random_seed
from torch import nn

from timm_attn.downstream.detection import shown
from timm_attn.downstream.loaders import train_loader, validation_loader
from timm_attn.downstream.loop import Loop
from timm_attn.downstream.recipe import TaskRecipe, load_task_recipe
from timm_attn.downstream.tasks import task_of
from timm_attn.downstream.train import measure, open_both
from timm_attn.figures.canvas import check_format, require_matplotlib, save
from timm_attn.figures.detections import Detections, detections_figure
from timm_attn.reports.numbers import write_numbers
from timm_attn.training.processes import ALONE

MODEL, RECIPE = 'cifar_resnet20_simam', 'scenes_faster'
PICTURED = 4  # scenes on the picture, the first of those held out


def run_demo(picture: Path) -> None:
    """Runs it without a network, prints what it measures, writes the picture, and the figures as CSV beside it.

    Raises:
        ValueError: the picture is neither .png nor .svg.
        RuntimeError: matplotlib or faster-coco-eval is not installed.
    """
    require_matplotlib()
    check_format(picture)
    recipe = replace(load_task_recipe(RECIPE), device='cpu')
    panels, rows = [], []
    for pretrained, what in ((True, 'bundled weights'), (False, 'random weights')):
        # frozen norms would keep the statistics of a net that has seen nothing
        options = recipe.task_kwargs if pretrained else {**recipe.task_kwargs, 'trainable_stages': None}
        start = time.perf_counter(), time.process_time()
        model, metrics = learned(replace(recipe, pretrained=pretrained, task_kwargs=options))
        seconds = time.perf_counter() - start[0]
        shown_metrics = {key: round(metrics[f'box_{key}'], 1) for key in ('AP', 'AP50', 'AP75')}
        rows.append(
            dict(weights=what, seed=recipe.seed, training_scenes=recipe.train_num_samples,
                 held_out_scenes=recipe.val_num_samples, **shown_metrics, seconds=round(seconds),
                 cpu_seconds=round(time.process_time() - start[1]))
        )  # fmt: skip
        figures = ', '.join(f'{key} {value} %' for key, value in shown_metrics.items())
        print(
            f'{MODEL} from {what}: {recipe.train_num_samples} scenes in {seconds:.0f} s; '
            f'on {recipe.val_num_samples} held-out scenes box {figures}',
            flush=True,
        )
        panels += _panels(model, recipe, f'from {what}')
    title = f'Faster R-CNN on {MODEL}: held-out scenes, detections with a score of at least 50 %'
    print(save(detections_figure(panels, title, PICTURED), picture))
    print(write_numbers(picture, 'csv', rows))


def learned(recipe: TaskRecipe) -> tuple[nn.Module, dict[str, float]]:
    """The detector of a recipe after its epochs, in evaluation mode, and its metrics on the held-out scenes."""
    random_seed(recipe.seed)
    task = task_of(recipe)
    trained, tested = open_both(task, recipe, Path())
    model = task.build(MODEL, recipe, trained.classes)
    loop = Loop(model, task, train_loader(trained, task.collate, recipe, ALONE), recipe)
    for epoch in loop.epochs:
        loop.epoch(epoch)
    tests = validation_loader(tested, task.collate, recipe, ALONE)
    return model, measure(model, task, tests, recipe, len(trained.classes))


@torch.inference_mode()
def _panels(model: nn.Module, recipe: TaskRecipe, title: str) -> list[Detections]:
    _, tested = open_both(task_of(recipe), recipe, Path())
    images = [tested[index][0] for index in range(PICTURED)]
    outputs = model(images)
    return [shown(image, output, tested.classes, title) for image, output in zip(images, outputs, strict=True)]
