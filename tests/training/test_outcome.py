"""What `weights publish` takes from the files of a run of `timm-attn train`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from tests.support.commands import fail_cli, run_cli
from tests.support.images import MODEL, rows, short
from timm_attn.training.outcome import outcome
from timm_attn.training.runner import train
from timm_attn.weights.publish import metric_rows
from timm_attn.weights.trained import read_training_file

Capture = pytest.CaptureFixture[str]
COMMAND = f'timm-attn train --config recipe.yaml --model {MODEL} --data-dir DATA --output OUT'


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / 'run')


@pytest.fixture(scope='module')
def averaged(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with averaged weights, on images held out of the training split."""
    output = tmp_path_factory.mktemp('averaged')
    train(short(model_ema=True, epochs=1), MODEL, folders, output, holdout=5)
    return output


def publish(capsys: Capture, file: Path, *options: object, fail: bool = False) -> Any:
    args = ['weights', 'publish', file, '--repo', 'org/toy', '--tag', 'toy', '--output', file.parent / 'out']
    if fail:
        return fail_cli(capsys, *args, '--dry-run', *options)
    return json.loads(run_cli(capsys, *args, '--dry-run', *options))


@pytest.mark.parametrize('name', ['last.pth.tar', 'last.safetensors'])
def test_accuracy_and_recipe_are_the_runs(name: str, run: Path, capsys: Capture) -> None:
    record = publish(capsys, run / name, '--dataset', 'Fashion-MNIST')
    last = rows(run)[-1]
    assert record['metrics'] == [
        dict(
            dataset='Fashion-MNIST',
            split='validation',
            images=100,
            top1=float(last['top1']),
            top5=float(last['top5']),
            status='measured',
            command=COMMAND,
        )
    ]
    assert record['training']['recipe'] == 'recipe.yaml'
    assert yaml.safe_load((run / 'out' / 'recipe.yaml').read_text()) == yaml.safe_load(
        (run / 'recipe.yaml').read_text()
    )
    card = (run / 'out' / 'README.md').read_text()
    assert f'| Fashion-MNIST | validation | {last["top1"]} | {last["top5"]} | measured |' in card
    assert 'Recipe: recipe.yaml.' in card


def test_a_folder_of_images_has_no_name(run: Path, capsys: Capture, caplog: pytest.LogCaptureFixture) -> None:
    assert publish(capsys, run / 'last.pth.tar')['metrics'] == []
    assert (
        f'accuracy of the run, {rows(run)[-1]["top1"]} %, is left out: its files do not name the data set'
        in caplog.text
    )


def test_options_come_before_the_run(run: Path, capsys: Capture) -> None:
    given = ['--dataset', 'Toy', '--split', 'test', '--images', 7, '--top1', 12.5, '--recipe', 'finetune']
    record = publish(capsys, run / 'last.pth.tar', *given)
    (row,) = record['metrics']
    assert row.pop('date') and row == dict(dataset='Toy', split='test', images=7, top1=12.5, status='claimed')
    assert record['training']['recipe'] == 'finetune' and not (run / 'out' / 'recipe.yaml').exists()


def test_single_values_replace_the_runs() -> None:
    measured = dict(dataset='torch/cifar10', split='validation', images=100, top1=50.0, top5=90.0, status='measured')
    assert metric_rows({'dataset': 'CIFAR-10', 'images': 9}, measured) == [
        {**measured, 'dataset': 'CIFAR-10', 'images': 9}
    ]
    assert metric_rows({'dataset': 'CIFAR-10'}, None) == []
    (row,) = metric_rows({'dataset': 'x', 'top1': 1.0, 'command': 'c'}, measured)
    assert row['status'] == 'measured' and row['split'] == 'validation' and 'top5' not in row and 'images' not in row


@pytest.mark.parametrize('name, ema', [('last.pth.tar', True), ('last.pth.tar', False), ('last_ema.safetensors', True)])
def test_averaged_weights_have_their_own_accuracy(name: str, ema: bool, averaged: Path) -> None:
    file = averaged / name
    found = outcome(file, read_training_file(file), ema)
    (row,) = rows(averaged)
    assert found is not None and found.metric['split'] == 'held out of train' and found.metric['images'] == 5
    assert found.metric['command'] == f'{COMMAND} --holdout 5'
    if ema:
        assert found.metric['top1'] == float(row['top1_ema']) and 'top5' not in found.metric
    else:
        assert [found.metric[key] for key in ('top1', 'top5')] == [float(row['top1']), float(row['top5'])]


def test_other_files_say_nothing(run: Path) -> None:
    """A file of timm's train.py, weights without a run beside them, and a run without an epoch."""
    state = timm.create_model(MODEL).state_dict()
    assert outcome(run / 'last.pth.tar', {'state_dict': state, 'arch': MODEL}) is None
    content = read_training_file(run / 'last.safetensors')
    assert outcome(run / 'other.safetensors', content) is None
    (run / 'summary.csv').unlink()
    assert outcome(run / 'last.safetensors', content) is None
    checkpoint = read_training_file(run / 'last.pth.tar')
    assert outcome(run / 'last.pth.tar', checkpoint) is not None
    assert outcome(run / 'last.pth.tar', {**checkpoint, 'rows': []}) is None


def test_a_kill_between_checkpoint_and_table(run: Path) -> None:
    lines = (run / 'summary.csv').read_text().splitlines()
    (run / 'summary.csv').write_text('\n'.join(lines[:-1]))
    found = outcome(run / 'last.pth.tar', read_training_file(run / 'last.pth.tar'))
    assert found is not None and found.metric['top1'] == float(lines[-1].split(',')[lines[0].split(',').index('top1')])


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_files_that_contradict_each_other_are_refused(run: Path, capsys: Capture) -> None:
    top1 = rows(run)[-1]['top1']
    edit(run / 'recipe.yaml', 'lr: 0.05', 'lr: 0.06')
    for name in ('last.pth.tar', 'last.safetensors'):
        said = publish(capsys, run / name, fail=True)
        assert f'{run / name} was not trained by the recipe beside it, {run / "recipe.yaml"}: lr differ' in said
    edit(run / 'recipe.yaml', 'lr: 0.06', 'lr: 0.05')
    edit(run / 'summary.csv', f',{top1},', ',99.99,')
    said = publish(capsys, run / 'last.pth.tar', fail=True)
    assert f'is not of the run in {run / "summary.csv"}, which has another top-1 after epoch 2' in said
    edit(run / 'summary.csv', ',99.99,', ',many,')
    said = publish(capsys, run / 'last.safetensors', fail=True)
    assert 'is damaged: its last row has no top1 and top5, or no numbers' in said
    lines = (run / 'summary.csv').read_text().splitlines()
    (run / 'summary.csv').write_text('\n'.join(lines[:-1]))
    assert 'which has 1 of 2 epochs' in publish(capsys, run / 'last.safetensors', fail=True)
    (run / 'summary.csv').write_bytes(b'\xff\xfe')
    assert 'is no table of a run' in publish(capsys, run / 'last.safetensors', fail=True)
    assert not (run / 'out').exists()


def test_a_named_data_set_is_the_recipes(run: Path) -> None:
    content = dict(read_training_file(run / 'last.pth.tar'))
    content['recipe'] = {**content['recipe'], 'dataset': 'torch/cifar10', 'val_split': 'test.tar'}
    (run / 'recipe.yaml').unlink()
    found = outcome(run / 'last.pth.tar', content)
    assert found is not None and (found.metric['dataset'], found.metric['split']) == ('torch/cifar10', 'test')
    assert metric_rows({}, found.metric) == [found.metric]


def test_damaged_rows_and_fingerprints(run: Path) -> None:
    file = run / 'last.pth.tar'
    content = read_training_file(file)
    with pytest.raises(ValueError, match=r'is damaged: its rows are \[5\]'):
        outcome(file, {**content, 'rows': [5]})
    found = outcome(file, {**content, 'options': {'validation images': 'many'}})
    assert found is not None and 'images' not in found.metric


def test_names_and_options_survive_two_copies(small: Path, tmp_path: Path, capsys: Capture) -> None:
    """From a run by `publish` to a folder, by timm's save_for_hf to another, and back."""
    recipe = short(epochs=1, model_kwargs={'attn_kwargs': {'e_lambda': 0.5}})
    train(recipe, MODEL, small, tmp_path / 'run')
    capsys.readouterr()  # a line per epoch
    record = publish(capsys, tmp_path / 'run' / 'last.pth.tar')
    names = record['cfg']['label_names']
    first = timm.create_model(f'local-dir:{tmp_path / "run" / "out"}', pretrained=True)
    timm.models.save_for_hf(first, str(tmp_path / 'copy'), safe_serialization=True)
    second = timm.create_model(f'local-dir:{tmp_path / "copy"}', pretrained=True)
    state = load_file(tmp_path / 'run' / 'last.safetensors')
    for model in (first, second):
        assert list(model.pretrained_cfg['label_names']) == names == sorted(p.name for p in (small / 'train').iterdir())
        assert model.layer1[0].conv_attn.e_lambda == 0.5 and model.pretrained_cfg['input_size'] == (3, 16, 16)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
