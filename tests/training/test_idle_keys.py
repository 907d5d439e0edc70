"""Keys that do nothing on the data of a training, against what timm makes of them."""

import ast
import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from timm.data import dataset_factory

from tests.support.images import MODEL, short
from timm_attn.training.idle_keys import NEEDS, WORKS_ON, refuse_idle
from timm_attn.training.recipe import Recipe
from timm_attn.training.runner import train
from timm_attn.training.validate import validate

DATASETS = {
    'folder': '', 'tar': '', 'torch': 'torch/cifar10', 'hfds': 'hfds/x', 'hfids': 'HFIDS/x', 'tfds': 'tfds/x',
    'wds': 'wds/x',
}  # fmt: skip
VALUES: dict[str, Any] = dict(
    class_map='m.txt', dataset_download=True, input_key='x', target_key='y', train_num_samples=5, val_num_samples=5,
    train_img_sizes=[16], train_batches_per_epoch=3,
)  # fmt: skip
# Of each key the kinds of data on which it is refused: the whole list, by hand.
REFUSED = {
    'class_map': 'torch',
    'dataset_download': 'folder tar wds',
    'input_key': 'tar torch',
    'target_key': 'folder tar torch',
    'train_num_samples': 'folder tar torch hfds tfds',
    'val_num_samples': 'folder tar torch hfds tfds',
    'train_img_sizes': 'hfids tfds wds',
    'train_batches_per_epoch': 'folder tar torch hfds hfids tfds wds',  # without train_img_sizes
}
CASES = [(key, kind) for key in VALUES for kind in DATASETS]


def of_kind(kind: str, root: Path, **changes: Any) -> Recipe:
    for split in ('train', 'validation'):
        (root / f'{split}.tar').touch() if kind == 'tar' else (root / split).mkdir()
    return short(dataset=DATASETS[kind], **changes)


@pytest.mark.parametrize(('key', 'kind'), CASES)
def test_a_key_that_does_nothing_is_refused(key: str, kind: str, tmp_path: Path) -> None:
    recipe = of_kind(kind, tmp_path, **{key: VALUES[key]})
    if kind not in REFUSED[key].split():
        refuse_idle(recipe, tmp_path)
        return
    with pytest.raises(
        ValueError, match=f'^The recipe has {key}: .*, which does nothing (on a {kind}|without train_i)'
    ):
        refuse_idle(recipe, tmp_path)


def test_both_keys_together_do_something(tmp_path: Path) -> None:
    refuse_idle(of_kind('folder', tmp_path, train_img_sizes=[16], train_batches_per_epoch=3), tmp_path)


def test_the_table_has_keys_of_the_recipe() -> None:
    assert {*WORKS_ON, *NEEDS, *NEEDS.values()} <= {f.name for f in fields(Recipe)} and {*REFUSED} == {*VALUES}


# The reader of timm that a kind of data ends in, and what create_dataset calls a key of the recipe.
READERS = {
    'folder': 'image_folder', 'tar': 'image_in_tar', 'hfds': 'hfds', 'hfids': 'hfids', 'tfds': 'tfds', 'wds': 'wds',
}  # fmt: skip
NAMES = dict(
    class_map='class_map', dataset_download='download', input_key='input_key', target_key='target_key',
    train_num_samples='num_samples', val_num_samples='num_samples',
)  # fmt: skip


@pytest.mark.parametrize('kind', READERS)
@pytest.mark.parametrize('key', NAMES)
def test_the_table_is_what_timm_does(key: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key works on a kind where timm hands it on and the reader takes it; hfds/ sets are downloaded in any case."""
    handed: dict[str, Any] = {}
    for name in ('ImageDataset', 'IterableImageDataset'):
        monkeypatch.setattr(dataset_factory, name, lambda *args, **kwargs: handed.update(kwargs))
    create: Any = dataset_factory.create_dataset
    create(DATASETS[kind], root=str(tmp_path), split='train', **{NAMES[key]: VALUES[key]})
    if kind == 'wds':  # timm drops it on the way
        handed.pop('download', None)
    spec = importlib.util.find_spec('timm')
    assert spec is not None and spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], 'data', 'readers', f'reader_{READERS[kind]}.py').read_text()
    (reader,) = (
        c for c in ast.parse(source).body if isinstance(c, ast.ClassDef) and c.name.startswith('Reader')
    )  # fmt: skip
    init = next(f for f in reader.body if isinstance(f, ast.FunctionDef) and f.name == '__init__')
    taken = {argument.arg for argument in init.args.args}
    works = bool(handed.get(NAMES[key])) and NAMES[key] in taken
    assert works == (kind in WORKS_ON[key]) or (key, kind) == ('dataset_download', 'hfds')


@pytest.mark.parametrize('dataset', ['troch/cifar10', 'foo/bar', 'tar/', 'folder/x', 'cifar10', 'torch', '/', 'hfds'])
def test_a_dataset_that_timm_does_not_have(dataset: str, small: Path, tmp_path: Path) -> None:
    """timm would read the folder."""
    said = re.escape(f'The recipe has dataset: {dataset!r}, but it must be torch/NAME, hfds/NAME, ')
    with pytest.raises(ValueError, match=f'^{said}.*, or empty for a folder or tar.$'):
        train(short(batch_size=10, dataset=dataset), MODEL, small, tmp_path / 'out')
    with pytest.raises(ValueError, match=f'^{said}'):
        validate(MODEL, small, recipe=short(dataset=dataset))
    assert not (tmp_path / 'out').exists()


def test_a_training_is_refused_before_anything(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='train_num_samples: 5, which does nothing on a folder: leave it out, it is'):
        train(short(batch_size=10, train_num_samples=5), MODEL, small, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
