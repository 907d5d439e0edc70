"""The accuracy of checkpoints, and the models that they say they are."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from tests.support.images import MODEL, rows, short
from timm_attn.cli import main
from timm_attn.reports.net import load_net
from timm_attn.training import checkpoint
from timm_attn.training.recipe import Recipe
from timm_attn.training.runner import train
from timm_attn.training.validate import validate
from timm_attn.weights import find_checkpoint

OPTIONS = dict(attn_kwargs=dict(e_lambda=0.1))


@pytest.fixture(scope='module')
def with_options(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose options no tensor shows."""
    output = tmp_path_factory.mktemp('runs') / 'options'
    train(short(epochs=1, model_kwargs=OPTIONS, model_ema=True, model_ema_decay=0.5), MODEL, folders, output)
    return output


@pytest.mark.parametrize('recipe', [None, short()])
@pytest.mark.parametrize('name', ['last.pth.tar', 'last.safetensors', 'theirs.pth.tar'])
def test_a_file_says_what_its_model_is(
    name: str, recipe: Recipe | None, folders: Path, with_options: Path, tmp_path: Path
) -> None:
    state = checkpoint.load(with_options / 'last.pth.tar')
    state['args'] = argparse.Namespace(
        model_kwargs=OPTIONS, **{k: vars(short())[k] for k in ('input_size', 'crop_pct')}
    )
    torch.save({k: state[k] for k in ('state_dict', 'args', 'arch')}, tmp_path / 'theirs.pth.tar')
    file = (tmp_path if name.startswith('theirs') else with_options) / name
    found = validate(MODEL, folders, weights=file, recipe=recipe, ema=False)
    assert found['loss'] == pytest.approx(float(rows(with_options)[-1]['val_loss']), rel=1e-5)
    assert load_net(MODEL, file).model.layer1[0].conv_attn.e_lambda == 0.1
    assert load_net(MODEL, file).data_config['input_size'] == (3, 16, 16)
    with pytest.raises(ValueError, match=r"trained with attn_kwargs \{'e_lambda': 0.1\}, but got \{'e_lambda': 0.2\}"):
        validate(MODEL, folders, weights=file, recipe=short(model_kwargs=dict(attn_kwargs=dict(e_lambda=0.2))))


@pytest.mark.parametrize('pretrained', [True, False])
@pytest.mark.parametrize('also', [{}, dict(attn_kwargs=dict(e_lambda=0.5))])
def test_a_start_of_the_user_brings_its_options_and_input(
    also: dict[str, Any], pretrained: bool, folders: Path, tmp_path: Path
) -> None:
    """A later load must not take the defaults, nor need the folder of the start."""
    start = timm.create_model(MODEL, attn_kwargs=dict(e_lambda=0.5))
    given: Any = dict(input_size=(3, 20, 20), mean=(0.1,) * 3, std=(0.4,) * 3)
    timm.models.save_for_hf(start, str(tmp_path / 'start'), safe_serialization=True, data_config=given)
    recipe = short(epochs=1, pretrained=pretrained, input_size=None, crop_pct=None, model_kwargs=also)
    for _ in range(2):  # and goes on, here from its end
        train(recipe, f'local-dir:{tmp_path / "start"}', folders, tmp_path / 'out', resume=True)
    shutil.rmtree(tmp_path / 'start')
    for name in ('last.pth.tar', 'last.safetensors'):
        loaded = load_net(None, tmp_path / 'out' / name)
        assert loaded.name == MODEL and loaded.model.layer1[0].conv_attn.e_lambda == 0.5
        assert {key: tuple(loaded.data_config[key]) for key in given} == given
        found = validate(MODEL, folders, weights=tmp_path / 'out' / name)
        assert found['loss'] == pytest.approx(float(rows(tmp_path / 'out')[-1]['val_loss']), rel=1e-5)


def test_a_tag_brings_its_options(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = replace(find_checkpoint(MODEL), model_args=dict(attn_kwargs=dict(e_lambda=0.5)))
    monkeypatch.setattr('timm_attn.weights.resolve.find_checkpoint', lambda *_: record)
    monkeypatch.setattr('timm_attn.training.run_config.checkpoints_of', lambda _: [record])
    train(short(epochs=1, pretrained=True), MODEL, folders, tmp_path)
    assert checkpoint.load(tmp_path / 'last.pth.tar')['recipe']['model_kwargs'] == record.model_args
    monkeypatch.undo()
    assert load_net(None, tmp_path / 'last.safetensors').model.layer1[0].conv_attn.e_lambda == 0.5


def test_the_averaged_weights_are_measured(folders: Path, with_options: Path) -> None:
    measured = [
        validate(MODEL, folders, weights=with_options / name)['loss']
        for name in ('last.pth.tar', 'last_ema.safetensors', 'last.safetensors')
    ]
    assert measured[0] == measured[1] != measured[2]


def test_changes_of_a_checkpoint_s_recipe(folders: Path, finished: Path, capsys: Any) -> None:
    common = ['validate', '--model', MODEL, '--data-dir', str(folders), '--checkpoint', str(finished / 'last.pth.tar')]
    assert main([*common, '--set', 'crop_pct=0.5', '--set', 'hflip=0.0']) == 0
    halved = capsys.readouterr().out
    assert main(common) == 0 and capsys.readouterr().out != halved
    assert main([*common, '--set', 'no_such=1']) == 1 and 'no_such' in capsys.readouterr().err
    assert (
        main([*common, '--set', 'crop_pct=[']) == 1 and "value in YAML, but got 'crop_pct=['" in capsys.readouterr().err
    )
    assert main([*common, '--set', 'device_modules=[no.such]']) == 1
    assert "device module 'no.such' cannot be imported" in capsys.readouterr().err


def test_validate_reads_checkpoints_of_train_py(folders: Path, finished: Path, tmp_path: Path) -> None:
    """They hold the script's arguments and numpy's numbers beside the weights."""
    state = load_file(finished / 'last.safetensors')
    extra = {'args': argparse.Namespace(lr=0.1), 'metric': np.float64(50), 'arch': MODEL}
    torch.save({'state_dict': state, **extra}, tmp_path / 'model_best.pth.tar')
    theirs, ours = (
        validate(MODEL, folders, weights=path, recipe=short())
        for path in (tmp_path / 'model_best.pth.tar', finished / 'last.safetensors')
    )
    assert theirs == ours


def test_validate_refuses(small: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f'{MODEL} has 10 classes, but .*small has 2'):
        validate(MODEL, small)
    with pytest.raises(ValueError, match='last.safetensors has 10 classes, but .* has 2'):
        validate(MODEL, small, weights=finished / 'last.safetensors')
    with pytest.raises(FileNotFoundError, match='no checkpoint .*gone'):
        validate(MODEL, small, weights=tmp_path / 'gone.safetensors')
    with pytest.raises(ValueError, match="is a checkpoint of 'cifar_resnet20_simam', not of 'cifar_resnet20_se'"):
        validate('cifar_resnet20_se', small, weights=finished / 'last.safetensors')
