"""Class predictions for image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import timm
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform, resolve_model_data_config

from timm_attn.catalog import require


@dataclass(frozen=True)
class Prediction:
    """An image's most probable classes, best first, as (label, probability)."""

    path: Path
    classes: list[tuple[str, float]]


@torch.inference_mode()
def predict(model_name: str, paths: Sequence[Path], top: int = 5) -> list[Prediction]:
    """The top classes of each image, with the model's checkpoint and its own preprocessing.

    Raises:
        ValueError: the model is unknown, or a file is not a readable image (then nothing is predicted).
        RuntimeError: the model has no checkpoint.
    """
    model = timm.create_model(require(model_name), pretrained=True).eval()
    transform: Any = create_transform(**resolve_model_data_config(model))
    inputs = [transform(read_image(path))[None] for path in paths]  # of photographs, much smaller than these
    cfg: Any = model.default_cfg
    labels = cfg.get('label_names') or [f'class {i}' for i in range(cfg['num_classes'])]
    predictions = []
    for path, image in zip(paths, inputs, strict=True):
        probabilities, classes = model(image)[0].softmax(dim=0).topk(min(top, len(labels)))
        ranked = zip(classes.tolist(), probabilities.tolist(), strict=True)
        predictions.append(Prediction(path, [(labels[c], p) for c, p in ranked]))
    return predictions


def read_image(path: Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        ValueError: the file is missing or cannot be decoded.
    """
    try:
        return decode_image(path, path)
    except FileNotFoundError:
        raise ValueError(f'There is no image {path}.') from None


def decode_image(file: Path | IO[bytes], name: object) -> Image.Image:
    """A file as an RGB image.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be decoded; the message has its name.
    """
    try:
        return Image.open(file).convert('RGB')
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f'{name} cannot be read as an image: {error}.') from error
