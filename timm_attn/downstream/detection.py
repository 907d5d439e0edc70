"""Detection and instance segmentation as tasks: data, loss, metrics and predictions of faster_rcnn and mask_rcnn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn.downstream.data.coco import Coco
from timm_attn.downstream.data.samples import DataSet, Flipped, Samples
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.detectors import faster_rcnn, mask_rcnn
from timm_attn.downstream.metrics.coco import Picture, coco_ap, picture_of
from timm_attn.downstream.recipe import SPLITS, TaskRecipe
from timm_attn.figures.canvas import save
from timm_attn.figures.detections import Detections, detections_figure
from timm_attn.reports.numbers import write_numbers
from timm_attn.training.processes import Processes

_SHOWN = ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large')
BOX_COLUMNS = tuple(f'box_{name}' for name in _SHOWN)
MASK_COLUMNS = tuple(f'mask_{name}' for name in _SHOWN)
_COUNTS, _SCENES = ('train_num_samples', 'val_num_samples'), (2000, 100)  # of scenes, and by default
_CORNERS = ('x1', 'y1', 'x2', 'y2')
SURE = 0.5  # score from which a detection is drawn


def _build(make: Callable[..., nn.Module], name: str, recipe: TaskRecipe, classes: Sequence[str]) -> nn.Module:
    """The detector of a recipe.

    Raises:
        ValueError: its backbone takes other pictures than those with three channels that are read.
    """
    channels = recipe.model_kwargs.get('in_chans', 3)
    if channels != 3:
        raise ValueError(f'The recipe has model_kwargs with in_chans: {channels}, but the pictures have 3 channels.')
    statistics = {f'image_{key}': vars(recipe)[key] for key in ('mean', 'std') if vars(recipe)[key]}
    return make(
        name,
        len(classes) + 1,
        pretrained_backbone=recipe.pretrained,
        backbone_kwargs=recipe.model_kwargs,
        **{**statistics, **recipe.task_kwargs},
    )


build_faster_rcnn = partial(_build, faster_rcnn)
build_mask_rcnn = partial(_build, mask_rcnn)


def _scenes(recipe: TaskRecipe, folder: Path, training: bool, *, masks: bool) -> Samples:
    """Scenes of the recipe's seed; the folder is not read."""
    size = recipe.input_size[1] if recipe.input_size else 64
    count = recipe.train_num_samples if training else recipe.val_num_samples
    samples = Scenes('train' if training else 'validation', count or _SCENES[not training], size, recipe.seed, masks)
    return Flipped(samples, recipe.hflip) if training else samples


def _coco(recipe: TaskRecipe, folder: Path, training: bool, *, masks: bool) -> Samples:
    samples = Coco(folder, recipe.train_split if training else recipe.val_split, training=training, masks=masks)
    return Flipped(samples, recipe.hflip) if training else samples


def _data(masks: bool) -> dict[str, DataSet]:
    return {
        'coco': DataSet(partial(_coco, masks=masks), (*SPLITS, 'hflip')),
        'scenes': DataSet(partial(_scenes, masks=masks), (*_COUNTS, 'input_size', 'hflip')),
    }


BOXES, MASKS = _data(masks=False), _data(masks=True)


def loss(model: nn.Module, batch: tuple[list[Tensor], list[Any]]) -> Tensor:
    """The sum of a detector's losses."""
    losses: dict[str, Tensor] = model(*batch)
    return torch.stack([value.float() for value in losses.values()]).sum()


@torch.inference_mode()
def _evaluate(
    kinds: Mapping[str, str],
    model: nn.Module,
    batches: Iterable[Any],
    classes: int,
    processes: Processes,
    autocast: Callable[[], Any],
) -> dict[str, float]:
    """COCO's average precisions in %, over the pictures of all processes."""
    seen: list[Picture] = []
    for images, targets in batches:
        with autocast():
            outputs = model(images)
        seen += [
            picture_of(target['image_id'], *triple)
            for target, *triple in zip(targets, images, targets, outputs, strict=True)
        ]
    shares = processes.gather(seen)
    found = None
    if processes.primary:
        pictures = sorted((picture for share in shares for picture in share), key=lambda picture: picture.number)
        found = {
            f'{prefix}_{name}': value
            for prefix, kind in kinds.items()
            for name, value in coco_ap(pictures, classes, kind).items()
        }
    metrics: dict[str, float] = processes.gather(found)[0]
    return metrics


evaluate_boxes = partial(_evaluate, {'box': 'bbox'})
evaluate_masks = partial(_evaluate, {'box': 'bbox', 'mask': 'segm'})


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor, classes: Sequence[str], picture: Path, numbers: str) -> Sequence[Path]:
    """Draws the detections of a picture with a score of at least 0.5, and writes all of them as numbers."""
    output = model([image])[0]
    boxes, scores, labels = (output[key].tolist() for key in ('boxes', 'scores', 'labels'))
    rows = [
        {'class': classes[label - 1], 'score': score, **dict(zip(_CORNERS, box, strict=True))}
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]
    table = write_numbers(picture, numbers, rows, columns=('class', 'score', *_CORNERS))
    drawn = shown(image, output, classes)
    title = f'{len(drawn.names)} of {len(rows)} detections: those with a score of at least {100 * SURE:.0f} %'
    figure = detections_figure([drawn], title)
    return save(figure, picture), table


def shown(image: Tensor, things: Mapping[str, Tensor], classes: Sequence[str], title: str = '') -> Detections:
    """A picture with what is on it, or with what was found on it with a score of at least 0.5."""
    sure = torch.ones(len(things['labels']), dtype=torch.bool)
    if 'scores' in things:
        sure = (things['scores'] >= SURE).cpu()
    kept = {key: things[key].cpu()[sure] for key in ('boxes', 'labels', 'scores', 'masks') if key in things}
    names = [classes[label - 1] for label in kept['labels'].tolist()]
    if 'scores' in kept:
        names = [f'{name} {100 * score:.0f} %' for name, score in zip(names, kept['scores'].tolist(), strict=True)]
    masks = kept.get('masks')
    return Detections(
        image=image.cpu().permute(1, 2, 0).numpy(),
        boxes=kept['boxes'].numpy(),
        names=names,
        classes=kept['labels'].tolist(),
        masks=None if masks is None else (masks.reshape(-1, *image.shape[1:]) >= 0.5).numpy(),
        title=title,
    )
