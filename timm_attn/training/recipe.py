"""A recipe: a YAML file with the keys of timm's train.py."""

import importlib
import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml

from timm_attn.training.bounds import must_be, short

RECIPES = Path(__file__).resolve().parent / 'recipes'


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The keys of timm's train.py that the runner knows, with train.py's defaults.

    Three differ: lr must be given, without device the runner takes CUDA where there is a GPU, and without num_classes
    it takes the classes of the training images. attention_lr_scale is the runner's own.
    """

    # data
    dataset: str = ''
    dataset_download: bool = False
    train_split: str = 'train'
    val_split: str = 'validation'
    train_num_samples: int | None = None
    val_num_samples: int | None = None
    class_map: str = ''
    input_key: str | None = None
    target_key: str | None = None
    num_classes: int | None = None
    input_size: list[int] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str = ''
    crop_pct: float | None = None
    batch_size: int = 128
    validation_batch_size: int | None = None
    train_img_sizes: list[int] | None = None
    train_batches_per_epoch: int | None = None
    workers: int = 4
    pin_mem: bool = False
    # augmentation
    no_aug: bool = False
    train_crop_mode: str | None = None
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    hflip: float = 0.5
    color_jitter: float | None = 0.4
    train_interpolation: str = 'random'
    smoothing: float = 0.1
    # model
    pretrained: bool = False
    drop: float = 0.0
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    # optimiser and schedule
    opt: str = 'sgd'
    opt_kwargs: dict[str, Any] = field(default_factory=dict)
    momentum: float = 0.9
    weight_decay: float = 2e-5
    clip_grad: float | None = None
    grad_accum_steps: int = 1
    lr: float
    attention_lr_scale: float = 1.0  # times lr for the attention layers; timm's train.py has no such option
    sched: str = 'cosine'
    sched_on_updates: bool = False
    epochs: int = 300
    start_epoch: int | None = None
    decay_milestones: list[int] = field(default_factory=lambda: [90, 180, 270])
    decay_epochs: float = 90
    decay_rate: float = 0.1
    warmup_epochs: int = 5
    warmup_lr: float = 1e-5
    cooldown_epochs: int = 0
    min_lr: float = 0.0
    # moving average of the weights
    model_ema: bool = False
    model_ema_decay: float = 0.9998
    model_ema_warmup: bool = False
    # run
    seed: int = 42
    device: str | None = None
    device_modules: list[str] = field(default_factory=list)
    channels_last: bool = False
    amp: bool = False
    amp_dtype: str = 'float16'
    torchcompile: str | None = None
    dist_bn: str = 'reduce'
    sync_bn: bool = False
    no_ddp_bb: bool = False


AnyRecipe = TypeVar('AnyRecipe', bound=Recipe)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself keeps the last of equal keys without a word."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.YAMLError(f'line {key.start_mark.line + 1} has the key {short(key.value)} again')
                seen.add((key.tag, key.value))
        return node


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is none, has a key twice, or is nested too deeply.
    """
    try:
        return yaml.load(text, _UniqueKeys)
    except RecursionError as error:
        raise yaml.YAMLError('it is nested too deeply') from error


def load_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe of the package by its name, or any YAML file, with some of its values changed.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: it has a key that the runner does not know, no lr, or a value of another type.
    """
    return load_recipe_as(Recipe, RECIPES, name_or_path, changes)


def load_recipe_as(
    kind: type[AnyRecipe], folder: Path, name_or_path: str, changes: Mapping[str, Any] | None = None
) -> AnyRecipe:
    """The same for another kind of recipe, whose own ones lie in another folder."""
    bundled = folder / f'{name_or_path}.yaml'
    path = bundled if bundled.is_file() else Path(name_or_path)
    if not path.is_file():
        have = ', '.join(sorted(p.stem for p in folder.glob('*.yaml')))
        raise FileNotFoundError(f'There is no recipe {name_or_path!r}: name a YAML file or one of {have}.')
    try:
        values = read_yaml(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'The recipe {path} is not YAML: {error}.') from error
    return recipe_as(kind, {**values, **(changes or {})} if isinstance(values, dict) else values, f'The recipe {path}')


def recipe_of(values: Mapping[str, Any], source: str) -> Recipe:
    """Makes a recipe of keys and values, which may be anything; errors begin with their source.

    Raises:
        ValueError: it has a key that the runner does not know, no lr, or a value that is not valid.
    """
    return recipe_as(Recipe, values, source)


def recipe_as(kind: type[AnyRecipe], values: Mapping[str, Any], source: str) -> AnyRecipe:
    """The same for another kind of recipe."""
    if not isinstance(values, Mapping):
        raise ValueError(f'{source} must be a mapping of keys to values, but is {short(values)}.')
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(key if isinstance(key, str) else short(key) for key in values if key not in known)
    if unknown:
        raise ValueError(f'{source} has keys that the runner does not know: {", ".join(unknown)}.')
    for f in known.values():
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise ValueError(f'{source} has no {f.name}.')
    for key, value in values.items():
        type_of = known[key].type
        valid = must_be(key, value) if _fits(value, type_of) else f'{_words(type_of)}{_number_hint(value)}'
        if valid:
            raise ValueError(f'{source} has {key}: {short(value)}, but it must be {valid}.')
    return kind(**values)


@contextmanager
def usable() -> Iterator[None]:
    """A block that calls timm with a recipe's values and nothing else; what timm refuses becomes a ValueError."""
    try:
        yield
    except (AssertionError, ImportError, IndexError, KeyError, TypeError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = str(error) or f'{frame.line} ({Path(frame.filename).name}, line {frame.lineno})'
        raise ValueError(f'The recipe has a value that cannot be used, {type(error).__name__}: {said}.') from error


def import_modules(recipe: Recipe) -> None:
    """Imports the recipe's device_modules.

    Raises:
        ValueError: one cannot be imported.
    """
    for module in recipe.device_modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a module of the user's may raise any
            raise ValueError(f'The device module {module!r} cannot be imported: {error}.') from error


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, k) for k in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(v, get_args(kind)[0]) for v in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _number_hint(value: Any) -> str:
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ''
    text = yaml.safe_dump(number).split()[0]
    return f' (YAML reads {short(value)[1:-1]} as a text: write {text})' if math.isfinite(number) else ''


def _words(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return ' or '.join(_words(k) for k in get_args(kind))
    names = {int: 'an integer', float: 'a number', str: 'a text', bool: 'true or false', NoneType: 'null'}
    return names.get(kind) or (
        'a mapping' if get_origin(kind) is dict else f'a list, each item {_words(get_args(kind)[0])}'
    )
