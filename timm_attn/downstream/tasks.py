"""The downstream tasks: what each builds, reads, minimises, measures and shows.

A new task is a row: train, evaluate and predict are the same for all.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from timm_attn.downstream import detection, scene_parsing, super_resolution, voc_detection
from timm_attn.downstream.data.samples import DataSet, Sample, as_lists
from timm_attn.downstream.recipe import TaskRecipe, refuse_idle
from timm_attn.training.processes import Processes

BACKBONE_KEYS = ('pretrained', 'model_kwargs', 'mean', 'std')


def is_backbone(name: str) -> bool:
    """Whether timm or the zoo has the net, with or without a tag."""
    return bool(timm.is_model(name.partition('.')[0]))


@dataclass(frozen=True)
class Task:
    """A row of TASKS. A batch is what `collate` makes of samples, moved to the device of the model.

    Args:
        build: the model of a recipe, by its name and the classes of the data. It may have `settings`: values of the
            recipe that the checkpoint of its backbone decided, so that it can be built again without that.
        keys: of the recipe that `build` reads, beside the common ones.
        data: the data sets by the recipe's `dataset`.
        loss: of a model in training and a batch, a scalar.
        evaluate: the metrics of a model over batches of this process's share of the samples: the model in evaluation
            mode, batches, the number of classes, the processes (every one calls it), autocast -> the same in all.
        columns: the metrics in the table of a run; the first is the one that counts.
        predict: a model in evaluation mode, a picture [C, H, W] from 0 to 1, the classes, a .png or .svg to write,
            'csv' or 'json' -> the files written.
        knows: whether a name, which may be anything, is one that `build` takes.
    """

    build: Callable[[str, TaskRecipe, Sequence[str]], nn.Module]
    keys: Collection[str]
    data: Mapping[str, DataSet]
    loss: Callable[[nn.Module, Any], Tensor]
    evaluate: Callable[
        [nn.Module, Iterable[Any], int, Processes, Callable[[], AbstractContextManager[Any]]], dict[str, float]
    ]
    columns: Sequence[str]
    predict: Callable[[nn.Module, Tensor, Sequence[str], Path, str], Sequence[Path]]
    collate: Callable[[Sequence[Sample]], Any] = as_lists
    knows: Callable[[str], bool] = is_backbone


TASKS: dict[str, Task] = {
    'faster_rcnn': Task(
        build=detection.build_faster_rcnn,
        keys=BACKBONE_KEYS,
        data=detection.BOXES,
        loss=detection.loss,
        evaluate=detection.evaluate_boxes,
        columns=detection.BOX_COLUMNS,
        predict=detection.predict,
    ),
    'mask_rcnn': Task(
        build=detection.build_mask_rcnn,
        keys=BACKBONE_KEYS,
        data=detection.MASKS,
        loss=detection.loss,
        evaluate=detection.evaluate_masks,
        columns=(*detection.BOX_COLUMNS, *detection.MASK_COLUMNS),
        predict=detection.predict,
    ),
    'ssd': Task(
        build=voc_detection.build,
        keys=('pretrained',),
        data=voc_detection.DATA,
        loss=detection.loss,
        evaluate=voc_detection.evaluate,
        columns=voc_detection.COLUMNS,
        predict=detection.predict,
        knows=voc_detection.knows,
    ),
    'upernet': Task(
        build=scene_parsing.build,
        keys=BACKBONE_KEYS,
        data=scene_parsing.DATA,
        loss=scene_parsing.loss,
        evaluate=scene_parsing.evaluate,
        columns=scene_parsing.COLUMNS,
        predict=scene_parsing.predict,
        collate=scene_parsing.collate,
    ),
    'srresnet': Task(
        build=super_resolution.build,
        keys=(),
        data=super_resolution.DATA,
        loss=super_resolution.l1,
        evaluate=super_resolution.evaluate,
        columns=super_resolution.COLUMNS,
        predict=super_resolution.predict,
        knows=super_resolution.knows,
    ),
}
TASKS['srresnet_mse'] = replace(TASKS['srresnet'], loss=super_resolution.mse)


def task_of(recipe: TaskRecipe) -> Task:
    """The row of a recipe.

    Raises:
        ValueError: there is none, it has no such data set, or the recipe has a key that neither reads.
    """
    task = TASKS.get(recipe.task)
    if task is None:
        raise ValueError(f'The recipe has task: {recipe.task!r}, but the tasks are {", ".join(TASKS)}.')
    if recipe.dataset not in task.data:
        raise ValueError(
            f'The recipe has dataset: {recipe.dataset!r}, but the task {recipe.task} reads {", ".join(task.data)}.'
        )
    refuse_idle(recipe, {*task.keys, *task.data[recipe.dataset].keys})
    return task
