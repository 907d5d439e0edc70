"""A recipe: a YAML file in the vocabulary of timm's train.py."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).resolve().parent / 'recipes'


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The keys of timm's train.py that the runner knows, with train.py's defaults; lr has none here."""

    # data
    dataset: str = ''
    train_split: str = 'train'
    val_split: str = 'validation'
    num_classes: int | None = None
    input_size: list[int] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str = ''
    crop_pct: float | None = None
    batch_size: int = 128
    # augmentation
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    hflip: float = 0.5
    color_jitter: float | None = 0.4
    train_interpolation: str = 'random'
    smoothing: float = 0.1
    # model
    drop: float = 0.0
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = False
    # optimiser and schedule
    opt: str = 'sgd'
    opt_kwargs: dict[str, Any] = field(default_factory=dict)
    momentum: float = 0.9
    weight_decay: float = 2e-5
    lr: float
    sched: str = 'cosine'
    epochs: int = 300
    decay_epochs: float = 90
    decay_rate: float = 0.1
    warmup_epochs: int = 5
    warmup_lr: float = 1e-5
    min_lr: float = 0.0
    # run
    seed: int = 42
    device_modules: list[str] = field(default_factory=list)


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe of the package by its name, or any YAML file.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: it has a key that the runner does not know, or no lr.
    """
    bundled = RECIPES / f'{name_or_path}.yaml'
    path = bundled if bundled.is_file() else Path(name_or_path)
    if not path.is_file():
        have = ', '.join(sorted(p.stem for p in RECIPES.glob('*.yaml')))
        raise FileNotFoundError(f'There is no recipe {name_or_path!r}: name a YAML file or one of {have}.')
    values = yaml.safe_load(path.read_text(encoding='utf-8'))
    if not isinstance(values, dict):
        raise ValueError(f'The recipe {path} must be a mapping of keys to values.')
    unknown = sorted(set(values) - {f.name for f in fields(Recipe)})
    if unknown:
        raise ValueError(f'The recipe {path} has keys that the runner does not know: {", ".join(unknown)}.')
    if 'lr' not in values:
        raise ValueError(f'The recipe {path} has no lr.')
    return Recipe(**values)
