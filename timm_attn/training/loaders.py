"""timm's loaders with the settings of a model's data config, on the CPU."""

from typing import Any

import torch
from timm.data import create_loader
from timm.data.loader import PrefetchLoader
from torch.utils.data import DataLoader

from timm_attn.training.recipe import Recipe

Loader = PrefetchLoader | DataLoader[Any]
_INPUT = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct')


def eval_loader(dataset: Any, data_config: dict[str, Any], batch_size: int = 250) -> Loader:
    """Every image once, resized, cropped and normalised as the model's cfg says."""
    settings = {k: data_config[k] for k in _INPUT}
    return create_loader(dataset, batch_size=batch_size, **settings, **_SERIAL)


def train_loader(dataset: Any, data_config: dict[str, Any], recipe: Recipe) -> Loader:
    """Shuffled batches, without the last partial one, under the recipe's augmentation."""
    settings = {k: data_config[k] for k in ('input_size', 'mean', 'std')}
    augmentation: dict[str, Any] = dict(
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        interpolation=recipe.train_interpolation,
    )
    return create_loader(dataset, batch_size=recipe.batch_size, is_training=True, **settings, **augmentation, **_SERIAL)


# Small images decode faster than a worker process could hand them over.
_SERIAL: dict[str, Any] = dict(num_workers=0, persistent_workers=False, device=torch.device('cpu'))
