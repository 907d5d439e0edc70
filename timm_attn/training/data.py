"""The images of a recipe: opened by timm, checked before anything is trained on them."""

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import ImageDataset
from torch.utils.data import Dataset, IterableDataset

from timm_attn.data.folders import labelled_image, open_dataset
from timm_attn.training.processes import ALONE, Processes
from timm_attn.training.recipe import Recipe

LEFT_OUT = -1  # the label of an image that counts for nothing


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded."""

    def __init__(self, message: str) -> None:
        # a loader's worker hands over its whole traceback, whose last line is the message
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


class Images(ImageDataset):
    """timm's folders and tars of images, where an unreadable file stops the run, or is skipped and counted.

    In training the next readable image takes its place; in a test it is handed out with the label LEFT_OUT.
    """

    def __init__(self, opened: ImageDataset, skip_unreadable: bool, training: bool) -> None:
        super().__init__('', reader=opened.reader, input_img_mode=opened.input_img_mode)  # type: ignore[no-untyped-call]
        self.skip_unreadable, self.training = skip_unreadable, training
        self.unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()  # the loader's workers write to it

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.first_readable(_from(index, range(len(self))))

    def first_readable(self, places: Iterable[int]) -> tuple[Any, int]:
        """The first of some images that can be read."""
        for place in places:
            image, label = self._read(place)
            if image is None and not self.training:
                image, label = Image.new(self.input_img_mode, (8, 8)), LEFT_OUT
            if image is not None:
                return (image if self.transform is None else self.transform(image)), label
        raise UnreadableImageError(f'Not one of the {len(self)} files can be read as an image.')

    def _read(self, place: int) -> tuple[Image.Image | None, int]:
        try:
            return labelled_image(self, place, self.input_img_mode)
        except ValueError as error:
            if not self.skip_unreadable:
                raise UnreadableImageError(
                    f'{error} Remove it, or leave such files out with --unreadable skip.'
                ) from error
        self.unreadable[place] = 1
        return None, LEFT_OUT


def _from(start: int, places: Sequence[int]) -> Iterator[int]:
    """All of them in turn, from one on; a list of them would be as long as the data set, for every image."""
    return (places[(start + i) % len(places)] for i in range(len(places)))


class Part(Dataset[Any]):
    """Some images of a set; timm's loaders set `transform`."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    transform = property(
        lambda self: self.dataset.transform, lambda self, value: setattr(self.dataset, 'transform', value)
    )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.dataset, Images):
            return self.dataset.first_readable(_from(index, self.indices))
        return self.dataset[self.indices[index]]


def open_split(
    recipe: Recipe, data_dir: Path, split: str, *, training: bool = False, skip_unreadable: bool = False
) -> Any:
    """A split of a recipe's data: a folder or tar of class folders, or one of timm's torch/, hfds/, wds/ sets.

    Where there is no folder SPLIT, it is the file SPLIT.tar.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has fewer than two classes, is a damaged tar, or there are only other splits.
        RuntimeError: it has no images.
    """
    if not recipe.dataset and not data_dir.exists():
        raise FileNotFoundError(f'There is no folder {data_dir} of images.')
    if not recipe.dataset and not (data_dir / split).exists() and (data_dir / f'{split}.tar').is_file():
        split = f'{split}.tar'
    try:
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
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f'{data_dir / split} is not a whole tar: {error}.') from error
    dataset = Images(opened, skip_unreadable, training) if isinstance(opened, ImageDataset) else opened
    if isinstance(dataset, Images) and not recipe.dataset:
        _refuse_another_split(dataset, data_dir, split)
    classes = class_names(dataset)
    if classes is not None and len(classes) < 2:
        raise ValueError(
            f'{getattr(dataset.reader, "root", data_dir)} has images of one class only ({classes[0] or "no folder"}); '
            'each class needs a folder of its own.'
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


def open_both(recipe: Recipe, data_dir: Path, *, skip_unreadable: bool = False) -> tuple[Any, Any]:
    """The training and the validation split, which must be apart and have the same classes.

    Raises:
        ValueError: one lies in the other, or their classes differ.
    """
    trained, tested = (
        open_split(recipe, data_dir, split, training=training, skip_unreadable=skip_unreadable)
        for split, training in ((recipe.train_split, True), (recipe.val_split, False))
    )
    if isinstance(trained, Images):
        roots = [os.path.realpath(d.reader.root) for d in (trained, tested)]
        if os.path.commonpath(roots) in roots:
            raise ValueError(
                f'{data_dir} must have a folder or tar for each of {recipe.train_split!r} and {recipe.val_split!r}; '
                f'as it is, the images would be read from {roots[0]} and {roots[1]}.'
            )
    ours, theirs = class_names(trained), class_names(tested)
    if ours and theirs and ours != theirs:
        differing = sorted(set(ours) ^ set(theirs)) or 'their order'
        raise ValueError(f'The classes of {recipe.train_split!r} and {recipe.val_split!r} differ: {differing}.')
    return trained, tested


def held_out(recipe: Recipe, data_dir: Path, count: int, *, skip_unreadable: bool = False) -> tuple[Part, Part]:
    """The training split without some images, and those, drawn once and for all; the validation split stays closed.

    Raises:
        ValueError: the split is streamed, or too small.
    """
    trained = open_split(recipe, data_dir, recipe.train_split, training=True, skip_unreadable=skip_unreadable)
    held = copy(trained)  # what differs is its transform, and what takes the place of an unreadable image
    held.training = False
    if isinstance(trained, IterableDataset):
        raise ValueError(f'{recipe.dataset!r} is streamed: no images can be held out of it.')
    if not 0 < count < len(trained):
        raise ValueError(f'{count} images cannot be held out of {len(trained)}.')
    order = torch.randperm(len(trained), generator=torch.Generator().manual_seed(0)).tolist()
    return Part(trained, order[count:]), Part(held, order[:count])


def class_names(dataset: Any) -> list[str] | None:
    """The classes in the order of their labels, where the data says them."""
    if isinstance(dataset, Part):
        return class_names(dataset.dataset)
    reader = getattr(dataset, 'reader', dataset)
    for attribute in ('class_to_idx', 'class_name_to_idx'):
        if indices := getattr(reader, attribute, None):
            return sorted(indices, key=indices.__getitem__)
    return None


def names_of(dataset: Any, indices: Sequence[int]) -> list[str]:
    """What some images of a set, of a part of one, or of one in timm's wrapper for sizes are called."""
    while not isinstance(dataset, ImageDataset) and hasattr(dataset, 'dataset'):
        if isinstance(dataset, Part):
            indices = [dataset.indices[i] for i in indices]
        dataset = dataset.dataset
    if not hasattr(dataset, 'filename'):
        return [f'number {i}' for i in indices]
    return [str(dataset.filename(i, absolute=True)) for i in indices]


def unreadable(dataset: Any, processes: Processes = ALONE) -> int:
    """How many different images any of the processes has skipped so far; all must call this."""
    while not isinstance(dataset, (Part, Images)) and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    images, indices = (dataset.dataset, dataset.indices) if isinstance(dataset, Part) else (dataset, slice(None))
    if not isinstance(images, Images) or not images.skip_unreadable:
        return 0
    return int((processes.total(images.unreadable[indices].int()) > 0).sum())
