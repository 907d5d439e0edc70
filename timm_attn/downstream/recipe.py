"""A recipe of a downstream task: the keys of a training and the task's own."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from timm_attn.training.recipe import Recipe, load_recipe_as, recipe_as

RECIPES = Path(__file__).resolve().parent / 'recipes'
# The keys of a training that every task follows; a task and its data set name those that they read beside these.
COMMON = (
    'dataset', 'batch_size', 'validation_batch_size', 'workers', 'opt', 'opt_kwargs', 'momentum', 'weight_decay',
    'clip_grad', 'lr', 'attention_lr_scale', 'sched', 'sched_on_updates', 'epochs', 'start_epoch', 'decay_milestones',
    'decay_epochs', 'decay_rate', 'warmup_epochs', 'warmup_lr', 'cooldown_epochs', 'min_lr', 'seed', 'device',
    'device_modules', 'amp', 'amp_dtype', 'dist_bn', 'sync_bn',
)  # fmt: skip
SPLITS = ('train_split', 'val_split')


@dataclass(frozen=True, kw_only=True)
class TaskRecipe(Recipe):
    """The keys of a training, its task, and a warm-up that is counted in updates, as the papers' pipelines do it.

    `dataset` is one of the task's, `model_kwargs` are the backbone's. Scenes have `train_num_samples`,
    `val_num_samples` and `input_size`; super-resolution has `train_num_samples` patches of `input_size`; scene parsing
    has pictures whose shorter side is one of `train_img_sizes`, and that of `input_size` in evaluation. A key that
    neither the task nor its data set reads is refused (see tasks.task_of).
    """

    task: str  # see tasks.TASKS
    task_kwargs: dict[str, Any] = field(default_factory=dict)  # of the task's builder
    warmup_updates: int = 0  # linear, from warmup_lr; needs sched_on_updates


def load_task_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> TaskRecipe:
    """A recipe of this folder by its name, or any YAML file, with some of its values changed.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: it has a key that is unknown or has a value that is not valid.
    """
    return _checked(load_recipe_as(TaskRecipe, RECIPES, name_or_path, changes))


def task_recipe(values: Mapping[str, Any], source: str) -> TaskRecipe:
    """The same of keys and values, which may be anything; errors begin with their source."""
    return _checked(recipe_as(TaskRecipe, values, source))


def refuse_idle(recipe: TaskRecipe, keys: Collection[str]) -> None:
    """Raises a ValueError for a key that is neither common to all tasks nor one of these, unless it has its default."""
    for f in fields(Recipe):
        if f.name not in COMMON and f.name not in keys:
            default = f.default_factory() if callable(f.default_factory) else f.default
            if getattr(recipe, f.name) != default:
                raise ValueError(
                    f'The recipe has {f.name}: {getattr(recipe, f.name)!r}, which does nothing in the task '
                    f'{recipe.task!r} on {recipe.dataset!r}: leave it out.'
                )


def _checked(recipe: TaskRecipe) -> TaskRecipe:
    if recipe.warmup_updates and (not recipe.sched_on_updates or recipe.warmup_epochs):
        raise ValueError(
            f'The recipe has warmup_updates: {recipe.warmup_updates}, which needs sched_on_updates: true '
            'and warmup_epochs: 0.'
        )
    return recipe
