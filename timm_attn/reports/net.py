"""Loads a trained net for the reports."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.data.loader import adapt_to_chs
from torch import Tensor, nn

from timm_attn import catalog, zoo
from timm_attn.figures.canvas import Array
from timm_attn.weights.reach import require_reachable
from timm_attn.weights.trained import read_training_file, trained_model

_logger = logging.getLogger(__name__)
_SMALL = 64  # pixels of an input, below which photographs lose most of what they show


@dataclass(frozen=True)
class Net:
    """A net in evaluation mode, the preprocessing of its cfg, and the names of its classes."""

    name: str
    model: nn.Module
    data_config: dict[str, Any]
    labels: list[str]
    device: torch.device

    @property
    def image_mode(self) -> str:
        """The mode of Pillow that the net takes: RGB, or L for one channel."""
        return 'L' if self.data_config['input_size'][0] == 1 else 'RGB'

    def prepare(self, image: Image.Image) -> Tensor:
        """A batch of one normalised image, (1, C, H, W)."""
        transform: Callable[[Image.Image], Tensor] = create_transform(**self.data_config)
        return transform(image.convert(self.image_mode))[None].to(self.device)

    def prepared(self, pictures: Iterable[Image.Image]) -> Iterator[Tensor]:
        """A batch of one for each picture, (1, C, H, W); one warning for all that are shrunk to a small input."""
        height, width = self.data_config['input_size'][1:]
        told = max(height, width) >= _SMALL
        for picture in pictures:
            if not told and picture.width > 2 * width and picture.height > 2 * height:
                seen = f'the net sees {width}x{height} pixels, your images have {picture.width}x{picture.height}'
                _logger.warning(f'{self.name} is for small images: {seen}.')
                told = True
            yield self.prepare(picture)

    def shown(self, images: Tensor) -> Array:
        """The first image of a batch without normalisation, (H, W, 3) in 0..1."""
        mean, std = (torch.tensor(self.data_config[k])[:, None, None] for k in ('mean', 'std'))
        shown: Array = (images[0].cpu() * std + mean).clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
        return shown

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """The probability of every class, (classes,), for the first image.

        Raises:
            ValueError: they are not finite.
        """
        found: Tensor = self.model(images)[0].softmax(dim=0).cpu()
        if not found.isfinite().all():
            raise ValueError(f'{self.name} gives outputs that are not finite: its weights are damaged, or overflow.')
        return found

    def ranked(self, probabilities: Tensor, top: int = 5) -> list[tuple[str, float]]:
        """The most probable classes, best first, as (label, probability)."""
        values, classes = probabilities.topk(min(top, len(self.labels)))
        return [(self.labels[c], p) for c, p in zip(classes.tolist(), values.tolist(), strict=True)]


def load_net(
    name: str | None, checkpoint: Path | None = None, device: str | None = None, *, trained: bool = True
) -> Net:
    """A net of the zoo or of timm.

    Args:
        name: of the model, also `local-dir:FOLDER` or `hf-hub:ORG/NAME`; None takes the one that the checkpoint says.
        checkpoint: a file of a training script, whose options and input settings are used, or of weights in any
            layout that `convert_state_dict` knows; by default the pretrained weights.
        device: by default a GPU if there is one.
        trained: False for initial weights.

    Raises:
        ValueError: the name is unknown or missing, or the file does not hold weights of that net.
        FileNotFoundError: there is no such file.
        RuntimeError: there are no pretrained weights, or the device is not here.
    """
    if name is not None:
        _require(name)
    on, settings = _find_device(device), {}
    if checkpoint is not None:
        found = trained_model(read_training_file(checkpoint), name, checkpoint)
        name, model, labels, settings = found.name, found.model, found.class_names or [], found.input
    elif name is not None:
        model = _created(name, trained)
        cfg: Any = model.default_cfg
        name = str(cfg['architecture']) if ':' in name else name  # files are named by it
        labels = list(cfg.get('label_names') or ())
    else:
        raise ValueError('Name a model, or a checkpoint that says which model it is of.')
    if len(labels) != model.num_classes:
        labels = [f'class {i}' for i in range(int(model.num_classes))]
    config = resolve_data_config(settings, model=model)
    for key in ('mean', 'std'):  # as timm's loader does in training
        config[key] = adapt_to_chs(config[key], config['input_size'][0])
    return Net(name, model.to(on).eval(), config, labels, on)


def _require(name: str) -> None:
    stem = name.partition('.')[0]
    if ':' not in name and (stem in zoo.names() or not timm.is_model(stem)):
        catalog.require(name)


def _created(name: str, pretrained: bool) -> Any:
    if pretrained and name.partition('.')[0] not in zoo.names():
        require_reachable(name)
    try:
        return timm.create_model(name, pretrained=pretrained)
    except (AssertionError, KeyError, TypeError) as error:  # of a config.json, in timm
        raise ValueError(f'{name} cannot be built: {type(error).__name__}, {error}.') from error


def distinct(nets: Sequence[Net]) -> list[Net]:
    """The same nets; those of one name (with other checkpoints) get a number, such as NAME-2."""
    named: dict[str, Net] = {}
    for net in nets:
        name, number = net.name, 1
        while name in named:
            number += 1
            name = f'{net.name}-{number}'
        named[name] = replace(net, name=name)
    return list(named.values())


def _find_device(device: str | None) -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return accelerator if accelerator is not None and accelerator.type == 'cuda' else torch.device('cpu')
    try:
        found = torch.device(device)
    except RuntimeError:  # torch's message lists twenty devices
        raise ValueError(f'{device!r} is no device: choose cpu, or cuda where there is a GPU.') from None
    if found.type != 'cpu' and (accelerator is None or accelerator.type != found.type):
        have = 'cpu' if accelerator is None else f'cpu, {accelerator.type}'
        raise RuntimeError(f'There is no device {device!r} here: choose from {have}.')
    return found
