"""Synthetic scenes of real articles: the bundled Fashion-MNIST pictures pasted onto a canvas, for detection and masks.

A scene is a function of (seed, split, index) alone. Scenes for training have articles of the training split, those for
validation of the test split.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST
from timm_attn.downstream.data.samples import Sample, detection_target, digest

SPLITS = ('train', 'validation')
_MOST = 3  # articles of a scene
_SIDES = (0.3, 0.5)  # of an article, shares of the canvas's side
_COVERED = 0.25  # share of an article's box that the others may cover
_TRIES = 20
_SEEN = 12  # grey level from which a pixel belongs to the article
_VERSION = 1  # of the drawing; another one gives other scenes


class Scene(NamedTuple):
    """A picture and what is on it."""

    image: Tensor  # [3, H, W], from 0 to 1
    boxes: Tensor  # [N, 4], x1, y1, x2, y2 in pixels
    labels: Tensor  # [N], 1 + the article's class
    masks: Tensor  # [N, H, W], bool: the visible pixels of each
    label_map: Tensor  # [H, W], the label of each pixel, 0 for the background


class Scenes:
    """`count` scenes of `size` x `size` pixels, as samples of detection, with or without masks.

    Raises:
        ValueError: there is no such split, or the size is below 32.
    """

    classes = CLASSES

    def __init__(self, split: str, count: int, size: int = 64, seed: int = 0, masks: bool = True) -> None:
        if split not in SPLITS:
            raise ValueError(f'Scenes have the splits {" and ".join(SPLITS)}, but got {split!r}.')
        if size < 32:
            raise ValueError(f'A scene needs at least 32 x 32 pixels, but got {size}.')
        self.split, self.count, self.size, self.seed = split, count, size, seed
        self.articles, self.masks = FashionMNIST(split), masks

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """The scene of an index, the same at every call."""
        random = np.random.RandomState([self.seed, SPLITS.index(self.split), index])
        canvas = _background(random, self.size)
        owner = np.zeros((self.size, self.size), dtype=np.int64)  # 0: background, n: the n-th article
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(random.randint(1, _MOST + 1)):
            chosen = random.randint(len(self.articles))
            grey, inside = _scaled(self.articles.images[chosen], int(self.size * random.uniform(*_SIDES)))
            box = _free_place(random, self.size, inside.shape, boxes)
            if box is None:
                continue
            left, top, right, bottom = box
            canvas[top:bottom, left:right][inside] = grey[inside]
            boxes.append(box)
            labels.append(1 + int(self.articles.labels[chosen]))
            owner[top:bottom, left:right][inside] = len(boxes)
        masks = owner == np.arange(1, len(boxes) + 1)[:, None, None]
        return _as_tensors(canvas, masks, np.array(labels))

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        size = (self.size, self.size)
        masks, area = scene.masks if self.masks else None, scene.masks.sum(dim=(1, 2)).float()
        return scene.image, detection_target(index, size, scene.boxes, scene.labels, masks, area=area)

    def name(self, index: int) -> str:
        """What a message calls a scene."""
        return f'scene {index} of {self.split}, seed {self.seed}'

    def fingerprint(self) -> dict[str, Any]:
        """The number of scenes, and the SHA-256 of what they are made of."""
        made_of = (self.split, self.count, self.size, self.seed, _VERSION, self.articles.labels.tolist())
        return dict(images=self.count, sha256=digest(made_of))


def _background(random: np.random.RandomState, size: int) -> npt.NDArray[np.float32]:
    """A smooth grey ground with noise, grey levels from 0 to 255, (size, size)."""
    coarse = random.uniform(20, 120) + random.uniform(-20, 20, (4, 4))
    smooth = Image.fromarray(coarse.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    noise = random.normal(0, 5, (size, size))
    return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.float32)


def _scaled(article: npt.NDArray[np.uint8], side: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """An article in a square of that side, cut to its own pixels: grey levels, and which pixels are the article's."""
    picture = Image.fromarray(article).resize((side, side), Image.Resampling.BILINEAR)
    inside = _filled(np.asarray(picture) >= _SEEN)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.asarray(picture, dtype=np.float32)[cut], inside[cut]


def _filled(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask with its holes: all pixels that have the article on all four sides."""
    turned = [np.rot90(np.logical_or.accumulate(np.rot90(mask, k), axis=0), -k) for k in range(4)]
    return np.logical_and.reduce(turned)


def _free_place(
    random: np.random.RandomState, size: int, shape: tuple[int, ...], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """A box of that shape which covers little of the others and is little covered; None where none was found."""
    height, width = shape
    for _ in range(_TRIES):
        left, top = random.randint(size - width + 1), random.randint(size - height + 1)
        box = (left, top, left + width, top + height)
        if all(_overlap(box, other) <= _COVERED for other in taken):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """The area that two boxes share, of the smaller one's."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _as_tensors(canvas: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> Scene:
    """The scene of a canvas; boxes are those of the visible pixels."""
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    label_map = (masks * labels[:, None, None]).sum(axis=0)
    image = torch.from_numpy(canvas.round() / np.float32(255)).expand(3, -1, -1).contiguous()
    return Scene(
        image,
        torch.tensor(np.array(boxes), dtype=torch.float32),
        torch.from_numpy(labels),
        torch.from_numpy(masks),
        torch.from_numpy(label_map),
    )
