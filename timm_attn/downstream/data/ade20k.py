"""ADE20K's scene parsing in its published layout: ROOT/{images,annotations}/{training,validation}, .jpg and .png."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from timm_attn.downstream.data.samples import Sample, digest
from timm_attn.images import read_image

CLASSES = 150
_NAMES = 'objectInfo150.txt'  # a line of headings, then lines of tabs that end with the names of a class


class Ade20k:
    """Pictures of a split with the class of each pixel: [H, W], 0 ... 149, or -1 where nobody labelled it.

    Args:
        root: ADEChallengeData2016, or the folder of it.

    Raises:
        FileNotFoundError: the folders, a picture or a label map is not there.
        ValueError: the split has no picture; from an item: a label map of other labels or of another size.
    """

    def __init__(self, root: Path, split: str) -> None:
        root = root / 'ADEChallengeData2016' if (root / 'ADEChallengeData2016').is_dir() else root
        self.split, self.classes = split, _names(root / _NAMES)
        folders = [root / kind / split for kind in ('images', 'annotations')]
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(f'There is no folder {folder}.')
        pictures = sorted(folders[0].glob('*.jpg'))
        if not pictures:
            raise ValueError(f'The folder {folders[0]} has no .jpg.')
        self.files = [(picture, folders[1] / f'{picture.stem}.png') for picture in pictures]
        for picture, labels in self.files:
            if not labels.is_file():
                raise FileNotFoundError(f'{picture} has no label map {labels}.')

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        picture, file = self.files[index]
        image, labels = pil_to_tensor(read_image(picture)).float() / 255, _labels(file)
        if image.shape[1:] != labels.shape:
            sizes = [' x '.join(map(str, size[::-1])) for size in (labels.shape, image.shape[1:])]
            raise ValueError(f'The label map {file} has {sizes[0]} pixels, but its picture {sizes[1]}.')
        return image, labels

    def name(self, index: int) -> str:
        """The file of a picture."""
        return str(self.files[index][0])

    def fingerprint(self) -> dict[str, Any]:
        """The number of pictures, and the SHA-256 of their names and the sizes of their files."""
        parts = [(picture.name, *(path.stat().st_size for path in (picture, labels))) for picture, labels in self.files]
        return dict(images=len(self), sha256=digest([self.split, *self.classes, *parts]))


def _labels(file: Path) -> Tensor:
    """The label map less 1."""
    try:
        with Image.open(file) as image:
            if image.mode not in ('L', 'P'):
                raise ValueError(f'its mode is {image.mode}, but must be L, one byte a pixel')
            labels = np.asarray(image).astype(np.int64)
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise ValueError(f'{file} cannot be read as a label map: {str(error).rstrip(".")}.') from error
    if labels.max() > CLASSES:
        raise ValueError(f'The label map {file} has the label {labels.max()}, but the labels are 0 to {CLASSES}.')
    return torch.from_numpy(labels) - 1


def _names(file: Path) -> list[str]:
    """The names of the classes; numbers where the file of the names is not there.

    Raises:
        ValueError: it has another number of names.
    """
    if not file.is_file():
        return [f'class {number}' for number in range(1, CLASSES + 1)]
    try:
        lines = file.read_text(encoding='utf-8').splitlines()[1:]
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} does not name classes: {error}.') from error
    names = [line.split('\t')[-1].strip() for line in lines if line.strip()]
    if len(names) != CLASSES:
        raise ValueError(f'{file} names {len(names)} classes, but there are {CLASSES}.')
    return names
