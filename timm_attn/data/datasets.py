"""The images of a folder or tar, and what becomes of a file that cannot be decoded."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from timm.data import ImageDataset
from torch.utils.data import Dataset

from timm_attn.data.folders import labelled_image

IGNORE_INDEX = -1  # the label of an image that is left out of every count
# What an unreadable file does: it ends the run; another image takes its place; it has the label IGNORE_INDEX.
Policy = Literal['stop', 'replace', 'ignore']


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded."""

    def __init__(self, message: str) -> None:
        # a loader's worker hands over its whole traceback, whose last line is the message
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


class Images(ImageDataset):
    """timm's folder or tar of images, with a policy for unreadable files; timm skips them without a word."""

    def __init__(self, opened: ImageDataset, policy: Policy = 'stop') -> None:
        super().__init__('', reader=opened.reader, input_img_mode=opened.input_img_mode)  # type: ignore[no-untyped-call]
        self.policy = policy
        self.unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()  # the loader's workers write to it

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.first_readable(index, range(len(self)))

    def first_readable(self, start: int, indices: Sequence[int]) -> tuple[Any, int]:
        """The first readable image of a cycle through the indices, which begins at the position `start`."""
        for index in _cycle(start, indices):
            image, label = self._read(index)
            if image is None and self.policy == 'ignore':
                image, label = Image.new(self.input_img_mode, (8, 8)), IGNORE_INDEX
            if image is not None:
                return (image if self.transform is None else self.transform(image)), label
        raise UnreadableImageError(f'Not one of the {len(self)} files can be read as an image.')

    def _read(self, index: int) -> tuple[Image.Image | None, int]:
        try:
            return labelled_image(self, index, self.input_img_mode)
        except ValueError as error:
            if self.policy == 'stop':
                raise UnreadableImageError(
                    f'{error} Remove it; train, sweep and validate leave such files out with --unreadable skip.'
                ) from error
        self.unreadable[index] = 1
        return None, IGNORE_INDEX


def _cycle(start: int, indices: Sequence[int]) -> Iterator[int]:
    """Every index once, from a position on; lazily, because a data set may have millions."""
    return (indices[(start + i) % len(indices)] for i in range(len(indices)))


class Subset(Dataset[Any]):
    """torch's Subset with a `transform`, which timm's loaders set, and with the policy of Images."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    transform = property(
        lambda self: self.dataset.transform, lambda self, value: setattr(self.dataset, 'transform', value)
    )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.dataset, Images):
            return self.dataset.first_readable(index, self.indices)
        return self.dataset[self.indices[index]]


def class_names(dataset: Any) -> list[str] | None:
    """The classes in the order of their labels, where the data has their names."""
    if isinstance(dataset, Subset):
        return class_names(dataset.dataset)
    reader = getattr(dataset, 'reader', dataset)
    for attribute in ('class_to_idx', 'class_name_to_idx'):
        if indices := getattr(reader, attribute, None):
            return sorted(indices, key=indices.__getitem__)
    return None
