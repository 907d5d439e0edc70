"""`timm-attn downstream`: train, evaluate and predict by command, and what they say of bad input."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torchvision.transforms.functional import to_pil_image

from tests.support.commands import fail_cli, run_cli
from tests.support.downstream import MODEL, tiny
from timm_attn.downstream import trained
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.images import read_image
from timm_attn.training import checkpoint


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of one epoch by the command."""
    from timm_attn.cli import main

    folder = tmp_path_factory.mktemp('run')
    (folder / 'r.yaml').write_text(yaml.safe_dump(vars(tiny(task='mask_rcnn', epochs=2))))
    options = ['--config', folder / 'r.yaml', '--model', MODEL, '--output', folder / 'out', '--set', 'epochs=1']
    assert main(['downstream', 'train', *map(str, options)]) == 0
    return folder / 'out'


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    to_pil_image(Scenes('validation', 1, 48).scene(0).image).save(tmp_path / 'scene.png')
    return tmp_path / 'scene.png'


def test_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_cli(capsys, 'downstream', 'evaluate', run / 'last.safetensors', '--device', 'cpu')
    line = dict(part.split() for part in out.strip().split(', '))
    (row,) = csv.DictReader((run / 'summary.csv').read_text().splitlines())
    assert float(line['box_AP']) == pytest.approx(float(row['box_AP']), rel=1e-5)
    assert {'box_AP50', 'box_AP95', 'mask_AP_small'} <= line.keys()


@pytest.fixture
def sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model, which finds a bag for certain, and maybe a coat."""
    load = trained.load

    class Found(nn.Module):
        def forward(self, images: Any) -> Any:
            size = images[0].shape[1:]
            masks = torch.zeros(2, 1, *size)
            masks[:, :, 5:20, 5:20] = 0.9
            boxes = torch.tensor([[5.0, 5, 20, 20], [2, 2, 40, 40]])
            return [dict(boxes=boxes, labels=torch.tensor([9, 5]), scores=torch.tensor([0.9, 0.2]), masks=masks)]

    monkeypatch.setattr(trained, 'load', lambda *args: (Found(), *load(*args)[1:]))


def test_predict(run: Path, scene: Path, sure: None, capsys: pytest.CaptureFixture[str]) -> None:
    where = ['--output', scene.parent / 'found', '--device', 'cpu']
    out = run_cli(capsys, 'downstream', 'predict', run / 'last.pth.tar', scene, *where)
    picture, table = map(Path, out.split())
    assert (picture.name, table.name) == ('scene_mask_rcnn.png', 'scene_mask_rcnn.csv')
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row['class'], float(row['x2'])) for row in rows] == [('bag', 20), ('coat', 40)]
    assert float(rows[0]['score']) == pytest.approx(0.9)
    colours = read_image(picture).getcolors(1 << 20)
    assert colours and any(abs(r - g) > 60 for _, (r, g, _) in colours)  # a box in colour on a grey scene
    out = run_cli(capsys, 'downstream', 'predict', run / 'last.pth.tar', scene, *where, '--numbers', 'json')
    assert [row['class'] for row in json.loads(Path(out.split()[1]).read_text())] == ['bag', 'coat']


def test_predict_without_a_detection(run: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = checkpoint.load(run / 'last.pth.tar')
    state['recipe']['task_kwargs']['box_score_thresh'] = 1.0
    checkpoint.save(scene.parent / 'strict.pth.tar', state)
    where = ['--output', scene.parent, '--device', 'cpu']
    out = run_cli(capsys, 'downstream', 'predict', scene.parent / 'strict.pth.tar', scene, *where)
    assert Path(out.split()[1]).read_text() == 'class,score,x1,y1,x2,y2\n'


def first(state: Any) -> str:
    """The key of a checkpoint's first tensor."""
    return next(iter(state['state_dict']))


DAMAGES: list[tuple[Any, str]] = [
    (lambda s: s['recipe'].pop('task'), 'is not of a downstream task: its recipe names none'),
    (lambda s: s['recipe'].update(task='pose'), "task: 'pose', but the tasks are"),
    (lambda s: s['recipe'].update(smoothing=0.2), 'smoothing: 0.2, which does nothing in the task'),
    (lambda s: s.update(arch='resnet18_simam'), 'does not fit mask_rcnn on resnet18_simam: '),
    (lambda s: s.update(arch='hf-hub:someone/model'), "of the model 'hf-hub:someone/model', which the task"),
    (lambda s: s['options'].update(class_names=['a', 'b']), 'does not fit mask_rcnn on'),
    (lambda s: s['recipe']['task_kwargs'].update(fpn_channels=72), 'does not fit mask_rcnn on'),
    (lambda s: s['recipe']['task_kwargs'].update(fpn_channels=10**9), 'a file may say texts and numbers up to 10,000'),
    (lambda s: s['recipe']['task_kwargs'].update(min_size=2049), 'a file may say texts and numbers up to 2,048'),
    (lambda s: s['recipe']['task_kwargs'].update(anchor_scale=float('nan')), "task_kwargs 'anchor_scale': nan"),
    (lambda s: s['recipe']['task_kwargs'].update(out_indices=[1] * 99), 'or at most 16 of them'),
    (lambda s: s['recipe']['task_kwargs'].update(pretrained_backbone=True), 'multiple values for'),
    (lambda s: s.update(state_dict=None), 'is damaged: its state_dict is None'),
    (lambda s: s['state_dict'].update({first(s): 'x'}), "is 'x', no tensor"),
    (lambda s: s['state_dict'][first(s)].fill_(float('nan')), 'has values that are not real and finite'),
    (lambda s: s['state_dict'].update({first(s): s['state_dict'][first(s)] + 1j}), 'has values that are not real and'),
    (lambda s: s['state_dict'].update({first(s): s['state_dict'][first(s)].int()}), 'needs another shape or type'),
    (lambda s: s['recipe'].update(model_kwargs=dict(checkpoint_path='x')), 'checkpoint_path'),
]


@pytest.mark.parametrize(('damage', 'message'), DAMAGES, ids=[m[:30] for _, m in DAMAGES])
def test_checkpoints_of_something_else(
    damage: Any, message: str, run: Path, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint.load(run / 'last.pth.tar')
    damage(state)
    file = scene.parent / 'other.pth.tar'
    checkpoint.save(file, state)
    assert message in fail_cli(capsys, 'downstream', 'predict', file, scene, '--output', scene.parent / 'found')
    assert not (scene.parent / 'found').exists()


def test_bad_arguments(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = run / 'last.safetensors'
    said = fail_cli(capsys, 'downstream', 'predict', weights, tmp_path / 'none.png', '--output', tmp_path / 'found')
    assert 'There is no image' in said and not (tmp_path / 'found').exists()
    said = fail_cli(capsys, 'downstream', 'evaluate', tmp_path / 'none.safetensors')
    assert 'There is no checkpoint' in said
    train = ['downstream', 'train', '--model', MODEL, '--output', tmp_path / 'out', '--config']
    said = fail_cli(capsys, *train, 'no_such')
    assert "no recipe 'no_such': name a YAML file or one of bam_ade20k, bam_coco, bam_sr" in said
    said = fail_cli(capsys, *train, 'simam_coco_faster', '--data-dir', tmp_path)
    assert 'There is no folder' in said and 'train2017 of pictures' in said
    assert not (tmp_path / 'out').exists()


def test_two_pictures_of_one_name(run: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = scene.parent / 'other' / 'scene.jpg'
    other.parent.mkdir()
    read_image(scene).save(other)
    found = scene.parent / 'found'
    said = fail_cli(capsys, 'downstream', 'predict', run / 'last.safetensors', scene, other, '--output', found)
    assert f'{scene} and {other} would both be written to {found / "scene"}_...' in said and not found.exists()


def test_coco_without_its_library(monkeypatch: pytest.MonkeyPatch, run: Path, capsys: Any) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'faster_coco_eval', None)
    said = fail_cli(capsys, 'downstream', 'evaluate', run / 'last.safetensors', '--device', 'cpu')
    assert "COCO needs faster-coco-eval: pip install 'timm-attn[downstream]'" in said
