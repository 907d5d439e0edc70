"""A labelled dataset as timm reads it, where an unreadable picture is an error."""

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from timm_attn.data.folders import labelled_image, open_dataset
from timm_attn.reports.net import Net
from timm_attn.training.loaders import eval_loader
from timm_attn.training.processes import Processes


class Pictures(Dataset[tuple[Any, int]]):
    """The images of a folder of class folders, or of a tar of them. (timm skips what it cannot read.)

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it has no images; on access, a picture cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f'There is no folder or tar {path}.')
        try:
            self.source: Any = open_dataset('', path)
        except (RuntimeError, ValueError, EOFError, tarfile.TarError) as error:
            raise ValueError(f'{path} has no images in class folders: {error}') from error
        self.mode = 'RGB'  # batches_of sets both
        self.transform: Any = None
        reader = self.source.reader
        names = reader.class_to_idx if hasattr(reader, 'class_to_idx') else reader.class_name_to_idx
        self.classes: list[str] = sorted(names, key=names.__getitem__)
        if '' in names:
            raise ValueError(f'{path} has images outside of class folders.')

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = labelled_image(self.source, index, self.mode)
        return (image if self.transform is None else self.transform(image)), int(label)


def batches_of(dataset: Pictures, net: Net, batch_size: int = 100) -> Iterable[tuple[Tensor, Tensor]]:
    """Every picture once, under the preprocessing of the net's cfg, on its device, with a progress bar."""
    dataset.mode = net.image_mode
    loader = eval_loader(dataset, net.data_config, batch_size, processes=Processes(net.device))
    return tqdm(loader, desc=net.name, unit='batch', leave=False)
