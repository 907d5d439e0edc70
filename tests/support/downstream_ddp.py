"""What each process of the tests of distributed downstream tasks does; started by torchrun.

torchrun --nproc-per-node 2 tests/support/downstream_ddp.py OUT
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

from tests.support.downstream import MODEL, SMALL, tiny
from timm_attn.data.fashion_mnist import CLASSES
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.loaders import train_loader
from timm_attn.downstream.loop import Loop
from timm_attn.downstream.recipe import TaskRecipe
from timm_attn.downstream.tasks import TASKS
from timm_attn.downstream.train import train
from timm_attn.downstream.trained import evaluate, predict
from timm_attn.training.processes import Processes, joined

# Nothing is drawn at random and each picture has as many anchors, proposals and boxes: the mean of two losses is the
# loss of both pictures.
EXACT: dict[str, Any] = dict(
    SMALL, trainable_stages=4, rpn_batch_size_per_image=10_000, rpn_fg_iou_thresh=0.5, rpn_bg_iou_thresh=0.5,
    rpn_nms_thresh=1.0, rpn_post_nms_top_n_train=20, box_batch_size_per_image=1000,
)  # fmt: skip


class Single:
    """The first six scenes with one article each."""

    classes = CLASSES

    def __init__(self) -> None:
        self.scenes = Scenes('train', 100, 32)
        found = (index for index in range(100) if len(self.scenes.scene(index).labels) == 1)
        self.indices = [next(found) for _ in range(6)]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return self.scenes[self.indices[index]]


def exact_recipe(batch_size: int) -> TaskRecipe:
    return tiny(task_kwargs=EXACT, batch_size=batch_size, opt='momentum', lr=0.02, epochs=1)


def three_steps(processes: Processes, batch_size: int) -> tuple[nn.Module, float]:
    """A detector after an epoch of three updates, and its mean loss."""
    torch.manual_seed(0)
    task, recipe, samples = TASKS['faster_rcnn'], exact_recipe(batch_size), Single()
    model = task.build(MODEL, recipe, samples.classes)
    loader = train_loader(samples, task.collate, recipe, processes)  # type: ignore[arg-type]
    loop = Loop(model, replace(task), loader, recipe, processes)
    return loop.model, loop.epoch(0)['loss']


def scene_files(folder: Path) -> list[Path]:
    """Three scenes as pictures."""
    folder.mkdir()
    files = [folder / f'{index}.png' for index in range(3)]
    for index, file in enumerate(files):
        to_pil_image(Scenes('validation', 3, 32)[index][0]).save(file)
    return files


def results(out: Path) -> Iterator[tuple[str, Any]]:
    """What this process saves, by name."""
    with joined('cpu') as processes:
        model, loss = three_steps(processes, 1)
        yield f'three_steps{processes.rank}', dict(state=model.state_dict(), loss=loss)
        train(tiny(batch_size=1, task='mask_rcnn'), MODEL, Path(), out / 'run', resume=True)
        metrics = evaluate(out / 'run' / 'last.pth.tar', Path(), dict(device='cpu'))
        yield f'metrics{processes.rank}', metrics
        pictures = scene_files(out / f'scenes{processes.rank}')
        yield f'predicted{processes.rank}', predict(out / 'run' / 'last.pth.tar', pictures, out / 'found', device='cpu')


if __name__ == '__main__':
    for name, value in results(Path(sys.argv[1])):
        torch.save(value, Path(sys.argv[1]) / f'{name}.pt')
