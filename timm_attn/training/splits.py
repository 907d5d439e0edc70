"""The images of a recipe: opened by timm, checked before anything is trained on them."""

import os
import tarfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from timm.data import ImageDataset
from timm.data.dataset_factory import _search_split
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import IterableDataset

from timm_attn.data.datasets import Images, Policy, Subset, class_names
from timm_attn.data.folders import open_dataset, split_in
from timm_attn.training.fingerprint import fingerprint
from timm_attn.training.idle_keys import kind_of
from timm_attn.training.processes import ALONE, Processes
from timm_attn.training.recipe import Recipe, usable

_FOLDERS_OF_TORCH = ('torch/folder', 'torch/image_folder', 'torch/imagenet')


def open_split(
    recipe: Recipe, data_dir: Path, split: str, *, training: bool = False, skip_unreadable: bool = False
) -> Any:
    """A split of a recipe's data: a folder or tar of class folders, or one of timm's torch/, hfds/, wds/ sets.

    Where there is no folder SPLIT, it is the file SPLIT.tar.

    Raises:
        FileNotFoundError: there is no such folder.
        ConnectionError: the dataset cannot be downloaded.
        ValueError: it has fewer than two classes, is a damaged tar, there are only other splits, or timm has no such
            dataset.
        RuntimeError: it has no images.
    """
    kind_of(recipe, data_dir, split)  # refuses a dataset for which timm would read the folder
    if not recipe.dataset and not data_dir.exists():
        raise FileNotFoundError(f'There is no folder {data_dir} of images.')
    if not recipe.dataset:
        split = split_in(data_dir, split)
    try:
        with usable():
            opened = open_dataset(
                recipe.dataset,
                data_dir,
                split,
                is_training=training,
                class_map=recipe.class_map,
                download=recipe.dataset_download,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                input_img_mode='RGB' if recipe.input_size is None or recipe.input_size[0] == 3 else 'L',
                input_key=recipe.input_key,
                target_key=recipe.target_key,
                num_samples=recipe.train_num_samples if training else recipe.val_num_samples,
            )
    except URLError as error:
        raise ConnectionError(
            f'{recipe.dataset} is not in {data_dir}, and cannot be downloaded there: {error.reason}.'
        ) from error
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f'{data_dir / split} is not a whole tar: {error}.') from error
    policy: Policy = 'stop' if not skip_unreadable else 'replace' if training else 'ignore'
    dataset = Images(opened, policy) if isinstance(opened, ImageDataset) else opened
    if isinstance(dataset, Images) and not recipe.dataset:
        _refuse_another_split(dataset, data_dir, split)
    classes = class_names(dataset)
    if classes is not None and len(classes) < 2:
        root = getattr(getattr(dataset, 'reader', dataset), 'root', data_dir)
        raise ValueError(
            f'{root} has images of one class only ({classes[0] or "no folder"}); each class needs a folder of its own.'
        )
    return dataset


def _refuse_another_split(dataset: Images, data_dir: Path, split: str) -> None:
    """timm reads all of a folder in which it does not find the split: right for class folders, wrong for splits."""
    if not data_dir.is_dir() or os.path.realpath(dataset.reader.root) != os.path.realpath(data_dir):
        return
    folders = sorted(child for child in data_dir.iterdir() if child.is_dir())
    if any(inner.is_dir() for folder in folders for inner in folder.iterdir()):
        have = ', '.join(folder.name for folder in folders[:10])
        raise ValueError(f'{data_dir} has no split {split!r}, neither a folder nor a tar, only {have}.')


def refuse_output(output: Path, recipe: Recipe, data_dir: Path, *, held_out: bool) -> None:
    """Raises a ValueError for an output whose files would be taken for classes or images of a split that is read.

    Args:
        held_out: only the training split is read.
    """
    wanted = Path(os.path.realpath(output))
    for split in (recipe.train_split,) if held_out else (recipe.train_split, recipe.val_split):
        if kind_of(recipe, data_dir, split) == 'folder' or recipe.dataset.lower() in _FOLDERS_OF_TORCH:
            # the one that timm finds, and the one that it would find if the output were made
            for folder in (_search_split(str(data_dir), split), data_dir / split):
                if wanted.is_relative_to(os.path.realpath(folder)):
                    raise ValueError(
                        f'The output {output} lies in {folder}, from which images are read: choose one elsewhere.'
                    )


def downloading(recipe: Recipe, processes: Processes) -> AbstractContextManager[None]:
    """A block that opens data; where it is downloaded, the first process of a node enters before the others."""
    return processes.first_on_node() if recipe.dataset_download else nullcontext()


def open_both(recipe: Recipe, data_dir: Path, *, skip_unreadable: bool = False) -> tuple[Any, Any]:
    """The training and the validation split, which must be apart and have the same classes.

    Raises:
        ValueError: one lies in the other, both have the same images, or their classes differ.
    """
    trained, tested = (
        open_split(recipe, data_dir, split, training=training, skip_unreadable=skip_unreadable)
        for split, training in ((recipe.train_split, True), (recipe.val_split, False))
    )
    _refuse_overlap(recipe, data_dir, trained, tested)
    ours, theirs = class_names(trained), class_names(tested)
    if ours and theirs and ours != theirs:
        differing = sorted(set(ours) ^ set(theirs)) or 'their order'
        raise ValueError(f'The classes of {recipe.train_split!r} and {recipe.val_split!r} differ: {differing}.')
    return trained, tested


def _refuse_overlap(recipe: Recipe, data_dir: Path, trained: Any, tested: Any) -> None:
    """Raises a ValueError where a model would be validated on images that it is trained on."""
    sources = [getattr(dataset, 'reader', dataset) for dataset in (trained, tested)]
    if isinstance(sources[0], (ReaderImageFolder, ReaderImageInTar)):
        roots = [os.path.realpath(source.root) for source in sources]
        if os.path.commonpath(roots) in roots:
            raise ValueError(
                f'{data_dir} must have a folder or tar for each of {recipe.train_split!r} and {recipe.val_split!r}; '
                f'as it is, the images would be read from {roots[0]} and {roots[1]}. '
                'To validate on a part of the training images, use --holdout, such as --holdout 0.2.'
            )
        return
    trained_on, tested_on = fingerprint(trained), fingerprint(tested)
    same_root = getattr(sources[0], 'root', None) == getattr(sources[1], 'root', None)
    same_images = trained_on['sha256'] is not None and trained_on == tested_on and same_root
    if same_images or recipe.train_split == recipe.val_split:
        raise ValueError(
            f'The splits {recipe.train_split!r} and {recipe.val_split!r} of {recipe.dataset!r} have the same images: '
            "name different ones in train_split and val_split, such as 'train' and 'validation'."
        )


def check_holdout(holdout: float) -> None:
    """Raises a ValueError for what is neither a number of images nor a share of them."""
    if not (0 < holdout < 1 or (holdout >= 1 and float(holdout).is_integer())):
        raise ValueError(f'holdout must be a number of images, or a share between 0 and 1, but is {holdout:g}.')


def held_out(recipe: Recipe, data_dir: Path, holdout: float, *, skip_unreadable: bool = False) -> tuple[Subset, Subset]:
    """The training split without some images, and those images; the validation split is not opened.

    Args:
        holdout: the number of images, or their share of the training split. Which ones they are is always the same.

    Raises:
        ValueError: the split is streamed, or too small.
    """
    trained = open_split(recipe, data_dir, recipe.train_split, training=True, skip_unreadable=skip_unreadable)
    held = copy(trained)  # with a transform and a policy of its own
    if isinstance(held, Images) and skip_unreadable:
        held.policy = 'ignore'
    if isinstance(trained, IterableDataset):
        raise ValueError(f'{recipe.dataset!r} is streamed: no images can be held out of it.')
    count = int(holdout) if holdout >= 1 else round(holdout * len(trained))
    if not 0 < count < len(trained):
        raise ValueError(f'{count} images cannot be held out of {len(trained)}.')
    order = torch.randperm(len(trained), generator=torch.Generator().manual_seed(0)).tolist()
    return Subset(trained, order[count:]), Subset(held, order[:count])


def names_of(dataset: Any, indices: Sequence[int]) -> list[str]:
    """The names of images of a data set, of a subset, or of a set in timm's wrapper for scheduled sizes."""
    while not isinstance(dataset, ImageDataset) and hasattr(dataset, 'dataset'):
        if isinstance(dataset, Subset):
            indices = [dataset.indices[i] for i in indices]
        dataset = dataset.dataset
    if not hasattr(dataset, 'filename'):
        return [f'number {i}' for i in indices]
    return [str(dataset.filename(i, absolute=True)) for i in indices]


def unreadable(dataset: Any, processes: Processes = ALONE) -> int:
    """How many different images the processes have found unreadable so far; every process must call this."""
    while not isinstance(dataset, (Subset, Images)) and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    images, indices = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, slice(None))
    if not isinstance(images, Images):
        return 0
    return int((processes.all_reduce_sum(images.unreadable[indices].int()) > 0).sum())
