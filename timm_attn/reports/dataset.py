"""A folder of class folders, or a tar of them, for the reports."""

import tarfile
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from timm_attn.data.datasets import Images, class_names
from timm_attn.data.folders import open_dataset
from timm_attn.reports.net import Net
from timm_attn.training.loaders import eval_loader
from timm_attn.training.processes import Processes


class Pictures(Images):
    """The images of a folder of class folders, or of a tar of them; an unreadable one is an error on access.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it has no images, or some outside of class folders.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f'There is no folder or tar {path}.')
        try:
            super().__init__(open_dataset('', path))
        except (RuntimeError, ValueError, EOFError, tarfile.TarError) as error:
            raise ValueError(f'{path} has no images in class folders: {error}') from error
        self.classes = class_names(self) or []
        if '' in self.classes:
            raise ValueError(f'{path} has images outside of class folders.')


def batches_of(dataset: Images, net: Net, batch_size: int = 100) -> Iterable[tuple[Tensor, Tensor]]:
    """Every image once, preprocessed by the net's cfg, on its device; with a progress bar on a terminal."""
    dataset.input_img_mode = net.image_mode
    loader = eval_loader(dataset, net.data_config, batch_size, processes=Processes(net.device))
    return tqdm(loader, desc=net.name, unit='batch', leave=False, disable=None)
