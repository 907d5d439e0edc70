"""The runner on real images: it learns, repeats itself bit for bit, and goes on exactly where it was interrupted."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from safetensors.torch import load_file
from timm.data import resolve_model_data_config

from tests.support.commands import ROOT
from tests.support.images import CONFIG, MODEL, group_norm_net, rows, same, short
from timm_attn.cli import main
from timm_attn.data.datasets import Subset
from timm_attn.data.fashion_mnist import BUNDLED, FashionMNIST
from timm_attn.training.engine import Engine
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import eval_loader
from timm_attn.training.recipe import load_recipe
from timm_attn.training.runner import train
from timm_attn.training.validate import validate


def test_training_learns_and_repeats(folders: Path, finished: Path, tmp_path: Path) -> None:
    table = rows(finished)
    assert [row['epoch'] for row in table] == ['1', '2']
    assert float(table[1]['loss']) < float(table[0]['loss']) and float(table[1]['train_top1']) > 10
    assert float(table[0]['lr']) == 0.05 and float(table[1]['lr']) == pytest.approx(0.025)
    files = {'last.pth.tar', 'last.safetensors', 'recipe.yaml', 'summary.csv'}
    assert {p.name for p in finished.iterdir()} == files | {'.lock'}
    train(short(), MODEL, folders, tmp_path / 'again')
    assert same(finished, tmp_path / 'again')
    train(short(seed=4), MODEL, folders, tmp_path / 'other')
    assert not same(finished, tmp_path / 'other')


def test_the_bundled_recipe_on_tars(tmp_path: Path) -> None:
    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, BUNDLED, tmp_path / 'data'], check=True, capture_output=True)
    recipe = load_recipe('fashion_mnist', dict(epochs=1, batch_size=250, device='cpu'))
    weights = train(recipe, 'cifar_resnet20', tmp_path / 'data', tmp_path / 'out')
    model = timm.create_model('cifar_resnet20')
    model.load_state_dict(load_file(weights), strict=True)
    cfg = dict(input_size=(3, 28, 28), mean=recipe.mean, std=recipe.std, crop_pct=1.0)
    model.pretrained_cfg = model.default_cfg = {**model.default_cfg, **cfg}
    (row,) = rows(tmp_path / 'out')
    loader = eval_loader(FashionMNIST('validation'), resolve_model_data_config(model))
    assert evaluate(model, loader)['top1'] == pytest.approx(float(row['top1']), abs=0.11)
    metrics = validate('cifar_resnet20', tmp_path / 'data', weights=tmp_path / 'out' / 'last.pth.tar')
    assert round(metrics['top1'], 2) == float(row['top1']) and metrics['images'] == 1000


def test_the_loss_of_a_stream_that_ends_early(monkeypatch: Any) -> None:
    loader = eval_loader(Subset(FashionMNIST('train'), range(40)), CONFIG, 20)
    loss = Engine(group_norm_net(), loader, short()).epoch(0)['loss']
    monkeypatch.setattr(type(loader), '__len__', lambda self: 4)  # what was expected of it
    assert Engine(group_norm_net(), loader, short()).epoch(0)['loss'] == pytest.approx(loss)


def test_tensorboard(folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'torch.utils.tensorboard', None)
        with pytest.raises(RuntimeError, match=r"not installed: pip install 'timm-attn\[tensorboard\]'"):
            train(short(), MODEL, folders, tmp_path / 'without', tensorboard=True)
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(short(), MODEL, folders, tmp_path / 'with', tensorboard=True)
    events = EventAccumulator(str(tmp_path / 'with' / 'tensorboard'))
    events.Reload()
    assert [e.step for e in events.Scalars('top1')] == [1, 2]


def test_confusion_is_drawn(small: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip('matplotlib')
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(short(epochs=1, batch_size=10))))
    command = ['train', '--config', str(tmp_path / 'r.yaml'), '--model', MODEL, '--data-dir', str(small)]
    assert main([*command, '--output', str(tmp_path / 'out'), '--confusion']) == 0
    assert (tmp_path / 'out' / 'confusion.png').read_bytes()[:4] == b'\x89PNG'
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / 'out' / 'last.safetensors')


def test_a_missing_matplotlib_is_said_before_the_training(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def missing() -> None:
        raise RuntimeError('Figures need matplotlib')

    monkeypatch.setattr('timm_attn.figures.require_matplotlib', missing)
    command = ['--config', 'finetune', '--model', MODEL, '--data-dir', str(small), '--output', str(tmp_path / 'out')]
    assert main(['train', *command, '--confusion']) == 1
    assert main(['sweep', *command, '--attn-kwarg', 'e_lambda', '--values', '1e-4']) == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('terminal', [False, True])
def test_a_progress_bar_is_for_a_terminal(terminal: bool, monkeypatch: Any) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, 'isatty', lambda: terminal, raising=False)
    monkeypatch.setattr(sys, 'stderr', stream)
    loader = eval_loader(Subset(FashionMNIST('train'), range(40)), CONFIG, 20)
    Engine(group_norm_net(), loader, short()).epoch(0)
    assert ('epoch 1/2' in stream.getvalue()) == terminal


def test_a_fault_of_ours_is_not_a_value_of_the_recipe(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def faulty(*_: Any) -> Any:
        raise KeyError('ours')

    train(short(epochs=1, batch_size=10), MODEL, small, tmp_path / 'first')
    for module in ('runner', 'validate'):
        monkeypatch.setattr(f'timm_attn.training.{module}.class_names', faulty)
    with pytest.raises(KeyError, match='ours'):
        train(short(), MODEL, small, tmp_path / 'out')
    with pytest.raises(KeyError, match='ours'):
        validate(MODEL, small, weights=tmp_path / 'first' / 'last.pth.tar')


def test_at_most_one_worker_per_core(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(short(epochs=1, batch_size=10, workers=3))))
    command = ['train', '--config', str(tmp_path / 'r.yaml'), '--model', MODEL, '--data-dir', str(small)]

    def workers(run: str, cores: int, *options: str) -> int:
        monkeypatch.setattr('timm_attn.training.loaders.usable_cores', lambda: cores)
        assert main([*command, '--output', str(tmp_path / run), *options]) == 0
        return load_recipe(str(tmp_path / run / 'recipe.yaml')).workers

    assert workers('two', 2) == 2 and workers('set', 2, '--set', 'workers=3') == 3
    assert workers('two', 1, '--resume') == 2  # else its random numbers would be others
