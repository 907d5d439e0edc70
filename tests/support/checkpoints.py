"""Checkpoint files and folders that say of themselves what a test wants them to say."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from timm_attn.weights.read import read_checkpoint

NAME = 'cifar_resnet20_se'
TENSORS = timm.create_model(NAME).state_dict()


def written(folder: Path, recipe: Any, tensors: Any = None, options: Any = None, name: str = 'x.safetensors') -> Path:
    """A checkpoint as our runner writes it, whose metadata says that."""
    tensors = timm.create_model(NAME).state_dict() if tensors is None else tensors
    metadata = dict(format='pt', arch=NAME, recipe=json.dumps(recipe), options=json.dumps(options or {}))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name, metadata)
    return folder / name


def as_pth(folder: Path, recipe: Any, **kwargs: Any) -> Path:
    """The same content as .pth.tar."""
    content = read_checkpoint(written(folder, recipe, **kwargs))
    torch.save(dict(content), folder / 'x.pth.tar')
    return folder / 'x.pth.tar'


def in_config(folder: Path, model_args: Any, **cfg: Any) -> str:
    """A folder for timm's local-dir: with that config.json."""
    model = timm.create_model(NAME, pretrained=True)
    timm.models.save_for_hf(model, str(folder / 'hub'), safe_serialization=True)
    path = folder / 'hub' / 'config.json'
    config = json.loads(path.read_text())
    config['model_args'] = {**config.get('model_args', {}), **model_args}
    config['pretrained_cfg'].update(cfg)
    config.update(cfg)  # the upper level counts where both have a field
    path.write_text(json.dumps(config))
    return f'local-dir:{folder / "hub"}'
