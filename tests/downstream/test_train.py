"""A run of a task: it learns, goes on exactly where it was interrupted, and its files tell what they are."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.downstream import FEW, MODEL, SMALL, rows, same, tiny, write_coco
from timm_attn.downstream.loaders import train_loader, validation_loader
from timm_attn.downstream.loop import Loop
from timm_attn.downstream.recipe import TaskRecipe
from timm_attn.downstream.tasks import TASKS, task_of
from timm_attn.downstream.train import measure, open_both, train
from timm_attn.downstream.trained import evaluate, load
from timm_attn.training import checkpoint
from timm_attn.training.engine import NonFiniteLossError
from timm_attn.training.processes import ALONE


def overfitted(task: str, name: str, steps: int, **options: Any) -> dict[str, float]:
    """The metrics of a detector on the four scenes that it was trained on."""
    recipe = tiny(
        task=task, task_kwargs={**FEW, 'fpn_channels': 64, 'min_size': 64, 'max_size': 64, **options},
        input_size=[3, 64, 64], train_num_samples=4, val_num_samples=4, batch_size=4, epochs=steps, hflip=0.0,
        sched_on_updates=True, seed=0,
    )  # fmt: skip
    torch.manual_seed(0)
    row = task_of(recipe)
    trained, _ = open_both(row, recipe, Path())
    model = row.build(name, recipe, trained.classes)
    loop = Loop(model, row, train_loader(trained, row.collate, recipe, ALONE), recipe)
    for epoch in loop.epochs:
        loop.epoch(epoch)
    return measure(model, row, validation_loader(trained, row.collate, recipe, ALONE), recipe, len(trained.classes))


def test_faster_rcnn_overfits_four_scenes() -> None:
    assert overfitted('faster_rcnn', 'resnet18_simam', 60, box_batch_size_per_image=48)['box_AP50'] >= 95


def test_mask_rcnn_overfits_four_scenes() -> None:
    metrics = overfitted('mask_rcnn', 'resnet18_bam', 50, box_batch_size_per_image=40)
    assert metrics['box_AP50'] >= 90 and metrics['mask_AP50'] >= 90


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp('runs') / 'whole'
    train(tiny(), MODEL, Path(), output)
    return output


def test_the_files_of_a_run(whole: Path) -> None:
    table = rows(whole)
    assert [row['epoch'] for row in table] == ['1', '2'] and float(table[1]['loss']) < float(table[0]['loss'])
    assert set(table[0]) == {'epoch', 'lr', 'loss', *TASKS['faster_rcnn'].columns}
    assert {path.name for path in whole.iterdir()} == {
        '.lock', 'last.pth.tar', 'last.safetensors', 'recipe.yaml', 'summary.csv',
    }  # fmt: skip
    model, recipe, classes = load(whole / 'last.safetensors')
    assert recipe.mean == [0.286] * 3 and len(classes) == 10 and not model.training
    metrics = evaluate(whole / 'last.pth.tar', Path(), dict(device='cpu'))
    assert {f'box_AP{t}' for t in range(50, 100, 5)} <= metrics.keys()
    assert str(metrics['box_AP']) == table[1]['box_AP']


CHANGES: list[dict[str, Any]] = [
    dict(),
    dict(task='mask_rcnn', workers=1, clip_grad=5.0, sched_on_updates=True, warmup_updates=2, opt='momentum',
         task_kwargs={**SMALL, 'trainable_stages': 2, 'box_loss': 'l1'}),
    # without the heads of masks, as bfloat16 takes minutes on a processor without AVX-512
    dict(amp=True, amp_dtype='bfloat16'),
]  # fmt: skip


@pytest.mark.parametrize('changes', CHANGES, ids=['plain', 'all', 'amp'])
def test_ctrl_c_and_resume(changes: dict[str, Any], whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    recipe, broken = tiny(**changes), tmp_path / 'broken'
    if changes:
        whole = tmp_path / 'whole'
        train(recipe, MODEL, Path(), whole)
    step, seen = Loop._step, 0

    def interrupted(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 5:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, '_step', interrupted)
        with pytest.raises(RuntimeError, match=r'Interrupted\. .*last.pth.tar has the run up to the end of epoch 1'):
            train(recipe, MODEL, Path(), broken)
    with pytest.raises(ValueError, match='already has a run: go on with --resume'):
        train(recipe, MODEL, Path(), broken)
    train(recipe, MODEL, Path(), broken, resume=True)
    assert same(whole, broken)


OTHERWISE: list[tuple[TaskRecipe, str, str]] = [
    (tiny(lr=0.1), MODEL, r'trained otherwise: lr \(0.001, now 0.1\)'),
    (tiny(train_num_samples=8), MODEL, r'trained otherwise: .*training images \(6 then, 8 now\)'),
    (tiny(), 'cifar_resnet20_se', "is a checkpoint of 'cifar_resnet20_simam', not of 'cifar_resnet20_se'"),
]


@pytest.mark.parametrize(('recipe', 'name', 'message'), OTHERWISE, ids=['lr', 'scenes', 'model'])
def test_resume_of_something_else(recipe: TaskRecipe, name: str, message: str, whole: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / 'last.pth.tar', checkpoint.load(whole / 'last.pth.tar'))
    with pytest.raises(ValueError, match=message):
        train(recipe, name, Path(), tmp_path, resume=True)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: Any) -> None:
    forward = nn.BatchNorm2d.forward
    calls = 0

    def poisoned(self: Any, x: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(self, x) * (float('inf') if calls > 3 else 1)

    monkeypatch.setattr(nn.BatchNorm2d, 'forward', poisoned)
    with pytest.raises(
        NonFiniteLossError, match=r'loss is nan at step 1 of epoch 1\. .*batch: scene \d of train, seed 3'
    ):
        train(tiny(), MODEL, Path(), tmp_path / 'out')
    assert checkpoint.load(tmp_path / 'out' / 'last.pth.tar')['epoch'] == -1


REFUSED: list[tuple[TaskRecipe, str]] = [
    (tiny(task='pose'), "task: 'pose', but the tasks are faster_rcnn, mask_rcnn"),
    (tiny(dataset='voc'), "dataset: 'voc', but the task faster_rcnn reads coco, scenes"),
    (tiny(dataset='coco'), "train_num_samples: 6, which does nothing in the task 'faster_rcnn' on 'coco'"),
    (
        tiny(dataset='coco', train_num_samples=None, val_num_samples=None, input_size=None),
        'There is no folder .*train of pictures',
    ),
    (tiny(batch_size=7), '6 training images do not fill one batch of 7 in each of 1 processes'),
    (tiny(task_kwargs=dict(no_such=1)), "'no_such' is no option of this detector"),
    (tiny(task_kwargs=dict(out_indices=[1, 2, 3, 4])), 'out_indices must be rising numbers from 0 to 3'),
    (tiny(input_size=[3, 16, 16]), 'A scene needs at least 32 x 32 pixels, but got 16'),
    (tiny(model_kwargs=dict(in_chans=1)), 'model_kwargs with in_chans: 1, but the pictures have 3 channels'),
]


@pytest.mark.parametrize(('recipe', 'message'), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_what_is_refused(recipe: TaskRecipe, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(recipe, MODEL, tmp_path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()  # nothing half-written


def test_a_coco_folder(tmp_path: Path) -> None:
    """The same train and evaluate as the real set; its own scenes give the same figures."""
    root = write_coco(tmp_path / 'coco')
    recipe = tiny(
        task='mask_rcnn', dataset='coco', train_split='train2017', val_split='val2017', epochs=1,
        train_num_samples=None, val_num_samples=None, input_size=None,
    )  # fmt: skip
    train(recipe, MODEL, root, tmp_path / 'out')
    (row,) = rows(tmp_path / 'out')
    metrics = evaluate(tmp_path / 'out' / 'last.safetensors', root, dict(device='cpu', batch_size=1))
    assert {k: metrics[k] for k in TASKS['mask_rcnn'].columns} == pytest.approx(
        {k: float(row[k]) for k in TASKS['mask_rcnn'].columns}, abs=1e-6
    )
    other = write_coco(tmp_path / 'other')
    file = other / 'annotations' / 'instances_val2017.json'
    file.write_text(file.read_text().replace('"trouser"', '"skirt"'))
    with pytest.raises(ValueError, match=r"has other classes than .* was trained on: \['skirt', 'trouser']"):
        evaluate(tmp_path / 'out' / 'last.safetensors', other, dict(device='cpu'))
    with pytest.raises(ValueError, match=r"classes of training and validation differ: \['skirt', 'trouser']"):
        train(recipe, MODEL, other, tmp_path / 'more')
