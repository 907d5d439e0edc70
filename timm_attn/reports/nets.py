"""A trained net by its name, ready to be looked at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from timm_attn import catalog, zoo
from timm_attn.figures.canvas import Array
from timm_attn.weights import convert_state_dict
from timm_attn.weights.read import read_checkpoint


@dataclass(frozen=True)
class Net:
    """A net in evaluation mode, the preprocessing of its cfg, and what its classes are called."""

    name: str
    model: nn.Module
    data_config: dict[str, Any]
    labels: list[str]
    device: torch.device

    def prepare(self, image: Image.Image) -> Tensor:
        """A batch of one normalised image, (1, 3, H, W)."""
        transform: Callable[[Image.Image], Tensor] = create_transform(**self.data_config)
        return transform(image)[None].to(self.device)

    def shown(self, images: Tensor) -> Array:
        """What the net saw of the first image, (H, W, 3) in 0..1."""
        mean, std = (torch.tensor(self.data_config[k])[:, None, None] for k in ('mean', 'std'))
        shown: Array = (images[0].cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
        return shown

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Of every class, (classes,), for the first image."""
        return self.model(images)[0].softmax(dim=0).cpu()

    def ranked(self, probabilities: Tensor, top: int = 5) -> list[tuple[str, float]]:
        """The most probable classes, best first, as (label, probability)."""
        values, classes = probabilities.topk(min(top, len(self.labels)))
        return [(self.labels[c], p) for c, p in zip(classes.tolist(), values.tolist(), strict=True)]


def load_net(name: str, checkpoint: Path | None = None, device: str = 'cpu', *, trained: bool = True) -> Net:
    """A net of the zoo or of timm.

    Args:
        checkpoint: a file of its weights, of a training script or in any layout that `convert_state_dict` knows; by
            default the pretrained ones.
        trained: False for the initial weights, where the values do not matter.

    Raises:
        ValueError: the name is unknown, or the file does not hold weights of that net.
        FileNotFoundError: there is no such file.
        RuntimeError: there are no pretrained weights, the sizes of the file's attention layers are others, or there is
            no such device.
    """
    stem = name.partition('.')[0]
    if stem in zoo.names() or not timm.is_model(stem):
        catalog.require(name)
    on = _find_device(device)
    if checkpoint is None:
        model = timm.create_model(name, pretrained=trained)
    else:
        state_dict = convert_state_dict(_read(checkpoint), stem)
        cfg: Any = timm.get_pretrained_cfg(stem)
        head = f'{cfg.classifier}.weight'
        options: dict[str, Any] = {'num_classes': len(state_dict[head])} if head in state_dict else {}
        model = timm.create_model(stem, **options)
        model.load_state_dict(state_dict)
    cfg = model.default_cfg
    labels = list(cfg.get('label_names') or ())
    if checkpoint is not None or len(labels) != model.num_classes:  # whose classes are others
        labels = [f'class {i}' for i in range(int(model.num_classes))]  # type: ignore[arg-type]
    return Net(name, model.to(on).eval(), resolve_model_data_config(model), labels, on)


def distinct(nets: Sequence[Net]) -> list[Net]:
    """The same nets, of which two of one name (with other checkpoints) are told apart by a number behind it."""
    named: dict[str, Net] = {}
    for net in nets:
        name, number = net.name, 1
        while name in named:
            number += 1
            name = f'{net.name}-{number}'
        named[name] = replace(net, name=name)
    return list(named.values())


def _find_device(device: str) -> torch.device:
    found = torch.device(device)
    if found.type != 'cpu':
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if accelerator is None or accelerator.type != found.type:
            have = 'cpu' if accelerator is None else f'cpu, {accelerator.type}'
            raise RuntimeError(f'There is no device {device!r} here: choose from {have}.')
    return found


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    try:
        return read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f'{path} cannot be read as a checkpoint: {error}') from error
