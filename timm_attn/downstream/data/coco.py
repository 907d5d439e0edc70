"""COCO in its published layout: ROOT/train2017/*.jpg and ROOT/annotations/instances_train2017.json."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from timm_attn.downstream.data.coco_rows import check_rows
from timm_attn.downstream.data.samples import Sample, detection_target, digest
from timm_attn.downstream.metrics.rle import decoded, from_segmentation
from timm_attn.images import read_image
from timm_attn.weights.metadata import class_names

_LEAST = 1.0  # pixels of a box's side; smaller ones are not trained on, as in mmdetection


class Coco:
    """A split of a COCO folder: pictures as RGB, boxes with labels 1 ... N in the order of the category ids, masks.

    For training, crowd regions are left out, as are pictures without any other box, and boxes are cut at the edges.

    Raises:
        FileNotFoundError: the folder or its annotations are not there.
        ValueError: the annotations are not COCO's, name a picture or category that they do not have, or there is none.
    """

    def __init__(self, root: Path, split: str, *, training: bool = False, masks: bool = False) -> None:
        self.folder, self.masks = root / split, masks
        self.file = root / 'annotations' / f'instances_{split}.json'
        content, self.sha256 = _read(self.folder, self.file)
        categories = {int(row['id']): str(row['name']) for row in content['categories']}
        self.ids = sorted(categories)
        self.classes = class_names([categories[number] for number in self.ids], self.file) or []
        self.labels = {number: place + 1 for place, number in enumerate(self.ids)}
        self.boxes: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        pictures = {int(row['id']): row for row in content['images']}
        for row in content['annotations']:
            self._check(row, pictures)
            if not training or (not row.get('iscrowd', 0) and min(_inside(row, pictures)) >= _LEAST):
                self.boxes[row['image_id']].append(row)
        kept = sorted(number for number in pictures if not training or self.boxes[number])
        self.pictures = [pictures[number] for number in kept]
        if not kept:
            raise ValueError(f'{self.file} has no picture{" with a box to train on" if training else ""}.')

    def _check(self, row: Mapping[str, Any], pictures: Mapping[int, Mapping[str, Any]]) -> None:
        """Raises a ValueError for an annotation that is not of these pictures and categories, or lies outside."""
        what = f'{self.file}: annotation {row["id"]}'
        if row['image_id'] not in pictures:
            raise ValueError(f'{what} is of the picture {row["image_id"]!r}, which is not among its images.')
        if row['category_id'] not in self.labels:
            have = f'{self.ids[0]} to {self.ids[-1]}' if self.ids else 'none'
            raise ValueError(f'{what} has the category {row["category_id"]!r}, which is not among its {have}.')
        if min(_inside(row, pictures)) < 0:
            picture = pictures[row['image_id']]
            raise ValueError(f'{what} has the bbox {row["bbox"]}, outside its picture of {_size(picture)} (W x H).')

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        picture = self.pictures[index]
        image = pil_to_tensor(read_image(self.folder / picture['file_name'])).float() / 255
        height, width = image.shape[1:]
        if (width, height) != (picture['width'], picture['height']):
            raise ValueError(
                f'{self.name(index)} has {width} x {height} pixels, but {self.file} says {_size(picture)}.'
            )
        rows = self.boxes[picture['id']]
        corners = torch.tensor([row['bbox'] for row in rows], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        limits = corners.new_tensor([width, height, width, height])
        return image, detection_target(
            index,
            (height, width),
            corners.clamp(min=0).minimum(limits),
            torch.tensor([self.labels[row['category_id']] for row in rows]),
            self._masks(rows, height, width) if self.masks else None,
            torch.tensor([bool(row.get('iscrowd', 0)) for row in rows]),
            torch.tensor([float(row['area']) for row in rows]),
        )

    def _masks(self, rows: list[Mapping[str, Any]], height: int, width: int) -> Tensor:
        found = []
        for row in rows:
            try:
                found.append(decoded(from_segmentation(row['segmentation'], height, width)))
            except ValueError as error:
                raise ValueError(f'{self.file}: annotation {row["id"]}: {error}') from error
        return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, height, width, dtype=torch.uint8)

    def name(self, index: int) -> str:
        """The file of a picture."""
        return str(self.folder / self.pictures[index]['file_name'])

    def fingerprint(self) -> dict[str, Any]:
        """The number of pictures, and the SHA-256 of their file of annotations and of whether masks are read."""
        return dict(images=len(self), sha256=digest([self.masks, self.sha256]))


def _read(folder: Path, file: Path) -> tuple[Any, str]:
    """The content of a file of annotations, and its SHA-256."""
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder} of pictures.')
    if not file.is_file():
        raise FileNotFoundError(f'There is no file {file} of annotations.')
    try:
        data = file.read_bytes()
        content = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f'{file} is not JSON: {error}.') from error
    check_rows(content, file)
    return content, hashlib.sha256(data).hexdigest()


def _inside(row: Mapping[str, Any], pictures: Mapping[int, Mapping[str, Any]]) -> tuple[float, float]:
    """Width and height of the part of a box that lies in its picture; negative where it lies outside."""
    picture, (x, y, width, height) = pictures[row['image_id']], row['bbox']
    return min(x + width, picture['width']) - max(x, 0), min(y + height, picture['height']) - max(y, 0)


def _size(picture: Mapping[str, Any]) -> str:
    return f'{picture["width"]} x {picture["height"]}'
