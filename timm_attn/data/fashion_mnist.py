"""Fashion-MNIST (Xiao et al., 2017, MIT): the part that comes with the package, and the full set where installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from timm_attn.data.idx import read_idx

CLASSES = (
    't-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot',
)  # fmt: skip
BUNDLED = Path(__file__).resolve().parent / 'fashion_mnist'
# The splits under timm's names, and their idx files under the names of the original distribution.
SPLITS = {'train': 'train', 'validation': 't10k'}


def load_arrays(folder: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of a split, from gzipped or plain idx files in a folder."""
    stem = SPLITS[split]
    images, labels = (read_idx(_find(folder, f'{stem}-{kind}-ubyte')) for kind in ('images-idx3', 'labels-idx1'))
    if len(images) != len(labels):
        raise ValueError(f'{folder} has {len(images)} images but {len(labels)} labels for {split!r}.')
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f'{name}.gz', folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f'{folder} has no {name}.gz, one of the four files of Fashion-MNIST.')


class FashionMNIST(Dataset[tuple[Any, int]]):
    """RGB images and labels of a split; timm's loaders set `transform`. By default the bundled, class-balanced part."""

    def __init__(self, split: str, folder: Path = BUNDLED) -> None:
        self.images, self.labels = load_arrays(folder, split)
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index]).convert('RGB')

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.image(index)
        return (image if self.transform is None else self.transform(image)), int(self.labels[index])
