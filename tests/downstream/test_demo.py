"""The demo in little, and that `import timm_attn` does not pay for detectors."""

import csv
import sys
from pathlib import Path

import pytest

from tests.support.commands import fail_cli, run, run_cli
from tests.support.downstream import tiny
from timm_attn.downstream import demo


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny(epochs=1, train_num_samples=2, val_num_samples=4)
    monkeypatch.setattr(demo, 'load_task_recipe', lambda name: recipe)
    out = run_cli(capsys, 'downstream', 'demo', '--output', tmp_path / 'found.png').splitlines()
    assert [line.partition(': ')[0] for line in out[:2]] == [
        f'cifar_resnet20_simam from {weights} weights' for weights in ('bundled', 'random')
    ]
    assert out[2:] == [str(tmp_path / 'found.png'), str(tmp_path / 'found.csv')]
    with (tmp_path / 'found.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['weights'] for row in rows] == ['bundled weights', 'random weights']
    assert all(0 <= float(row['AP']) <= float(row['AP50']) <= 100 for row in rows)


def test_a_picture_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fail_cli(capsys, 'downstream', 'demo', '--output', tmp_path / 'found.jpg')
    assert 'A figure is a .png or .svg file' in said and not [*tmp_path.iterdir()]


def test_the_import_is_lazy() -> None:
    code = """
import sys, timm_attn
assert not any(name.startswith(('timm_attn.downstream', 'faster_coco_eval')) for name in sys.modules)
assert timm_attn.downstream.faster_rcnn.__name__ == 'faster_rcnn'
"""
    run(sys.executable, '-c', code)
