"""Super-resolution x4 as a task (BAM Table 8): SRResNet on folders of pictures, measured on the luma."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_attn.downstream.data.pictures import Patches, Pictures
from timm_attn.downstream.data.samples import DataSet, Samples
from timm_attn.downstream.layers import is_name, split_name
from timm_attn.downstream.metrics.psnr import to_uint8, y_psnr, y_ssim
from timm_attn.downstream.recipe import SPLITS, TaskRecipe
from timm_attn.downstream.resize import imresize_uint8
from timm_attn.downstream.srresnet import srresnet
from timm_attn.images import write_png
from timm_attn.training.processes import Processes

NETS = ('srresnet',)
COLUMNS = ('psnr', 'ssim', 'bicubic_psnr', 'bicubic_ssim', 'least_gain')
SIDE = 96  # pixels of a large patch


def knows(name: str) -> bool:
    """Whether a name is srresnet or srresnet_ATTENTION."""
    return is_name(name, NETS)


def build(name: str, recipe: TaskRecipe, classes: Sequence[str]) -> nn.Module:
    """The net of a recipe, whose task_kwargs are srresnet's."""
    return srresnet(split_name(name, NETS)[1], **recipe.task_kwargs)


def _pictures(recipe: TaskRecipe, folder: Path, training: bool) -> Samples:
    if not training:
        return Pictures(folder, recipe.val_split)
    side = recipe.input_size[1] if recipe.input_size else SIDE
    return Patches(folder, recipe.train_split, recipe.train_num_samples, side)


DATA = {'pictures': DataSet(_pictures, (*SPLITS, 'train_num_samples', 'input_size'))}


def l1(model: nn.Module, batch: tuple[list[Tensor], list[Tensor]]) -> Tensor:
    """The mean absolute difference of a batch of patches."""
    small, large = map(torch.stack, batch)
    return F.l1_loss(model(small).float(), large)


def mse(model: nn.Module, batch: tuple[list[Tensor], list[Tensor]]) -> Tensor:
    """The mean squared difference, as Ledig et al. train."""
    small, large = map(torch.stack, batch)
    return F.mse_loss(model(small).float(), large)


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[Any], classes: int, processes: Processes, autocast: Callable[[], Any]
) -> dict[str, float]:
    """Means over the pictures: PSNR and SSIM of the net and of MATLAB's bicubic, and the least gain in PSNR of any."""
    seen: list[dict[str, float]] = []
    for smalls, larges in batches:
        for small, large in zip(smalls, larges, strict=True):
            with autocast():
                made = model(small[None])[0]
            seen.append(compare(to_uint8(made), to_uint8(large), bicubic(to_uint8(small))))
    rows = [row for share in processes.gather(seen) for row in share]
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return {**means, 'least_gain': min(row['psnr'] - row['bicubic_psnr'] for row in rows)}


def bicubic(small: Any) -> Any:
    """MATLAB's enlargement, (h, w, 3) -> (4h, 4w, 3) of uint8."""
    return imresize_uint8(small, 4 * small.shape[0], 4 * small.shape[1])


def compare(made: Any, real: Any, plain: Any) -> dict[str, float]:
    """PSNR and SSIM of a net's picture and of the bicubic one, (H, W, 3) of uint8 each."""
    return {
        f'{prefix}{name}': metric(picture, real)
        for prefix, picture in (('', made), ('bicubic_', plain))
        for name, metric in (('psnr', y_psnr), ('ssim', y_ssim))
    }


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor, classes: Sequence[str], picture: Path, numbers: str) -> Sequence[Path]:
    """Writes the picture four times as large; there are no numbers."""
    write_png(picture, to_uint8(model(image[None])[0]))
    return [picture]
