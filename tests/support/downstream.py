"""Small detectors, a short recipe for them, and a COCO folder in miniature, for the tests of the downstream tasks."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from timm_attn.data.fashion_mnist import CLASSES
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.recipe import TaskRecipe, task_recipe

MODEL = 'cifar_resnet20_simam'
FEW: dict[str, Any] = dict(
    anchor_scale=4, rpn_post_nms_top_n_train=100, rpn_post_nms_top_n_test=50, box_batch_size_per_image=32
)  # proposals, for speed
SMALL: dict[str, Any] = dict(fpn_channels=16, min_size=32, max_size=32, **FEW)


def tiny(**changes: Any) -> TaskRecipe:
    """Two epochs of three steps on scenes of 32 x 32 pixels."""
    values = dict(
        task='faster_rcnn', task_kwargs=SMALL, dataset='scenes', input_size=[3, 32, 32], train_num_samples=6,
        val_num_samples=5, batch_size=2, workers=0, epochs=2, opt='adamw', lr=1e-3, weight_decay=1e-4, sched='cosine',
        warmup_epochs=0, seed=3, device='cpu',
    )  # fmt: skip
    return task_recipe({**values, **changes}, 'The recipe')


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def rows(output: Path) -> list[dict[str, str]]:
    with open(output / 'summary.csv', newline='') as file:
        return [{k: v for k, v in row.items() if k != 'seconds'} for row in csv.DictReader(file)]


def same(a: Path, b: Path) -> bool:
    """Whether two runs ended in the same weights, bit for bit, and measured the same."""
    ours, theirs = (load_file(run / 'last.safetensors') for run in (a, b))
    return all(torch.equal(ours[k], theirs[k]) for k in ours) and rows(a) == rows(b)


def write_coco(root: Path, train: int = 6, val: int = 5, size: int = 32) -> Path:
    """ROOT/train2017, ROOT/val2017 and ROOT/annotations of scenes, whose category ids have gaps, as COCO's have.

    The last picture of each split has nothing on it, and one more box on the first is a crowd.
    """
    (root / 'annotations').mkdir(parents=True)
    for split, name, count in (('train', 'train2017', train), ('validation', 'val2017', val)):
        scenes, folder = Scenes(split, count, size, seed=3), root / name
        folder.mkdir()
        images, annotations = [], []
        for index in range(count + 1):
            scene = scenes.scene(min(index, count - 1))
            image = scene.image if index < count else torch.zeros_like(scene.image)
            to_pil_image(image).save(folder / f'{index:012}.png')
            images.append(dict(id=100 + index, file_name=f'{index:012}.png', width=size, height=size))
            if index < count:
                annotations += _annotations(100 + index, scene.boxes, scene.labels, scene.masks)
        crowd = dict(annotations[0], id=0, iscrowd=1, bbox=[0, 0, size // 2, size // 2], area=(size // 2) ** 2)
        crowd['segmentation'] = dict(size=[size, size], counts=[0, size * size // 2, size * size - size * size // 2])
        annotations = [dict(row, id=number) for number, row in enumerate([*annotations, crowd], 1)]
        categories = [dict(id=3 * label + 1, name=name) for label, name in enumerate(CLASSES)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{name}.json').write_text(json.dumps(content))
    return root


def _annotations(picture: int, boxes: Tensor, labels: Tensor, masks: Tensor) -> list[dict[str, Any]]:
    """Boxes as x, y, width, height, masks as uncompressed run lengths down the columns."""
    rows = []
    for box, label, mask in zip(boxes.tolist(), labels.tolist(), masks, strict=True):
        left, top, right, bottom = box
        flat = mask.T.flatten()
        values, counts = torch.unique_consecutive(flat, return_counts=True)
        runs = ([0] if values[0] else []) + counts.tolist()  # the first run is of zeros
        rows.append(
            dict(
                image_id=picture, category_id=3 * (label - 1) + 1, iscrowd=0, area=int(mask.sum()),
                bbox=[left, top, right - left, bottom - top], segmentation=dict(size=[*mask.shape], counts=runs),
            )
        )  # fmt: skip
    return rows
