"""From a training script's checkpoint to the hub and back, and what cannot be published."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file

from tests.support.hub_server import LocalHub
from timm_attn import cli
from timm_attn.weights.manifest import PACKAGE, manifest_path
from timm_attn.weights.publish import prepare
from timm_attn.weights.trained import model_arguments

SCHEMA = json.loads((PACKAGE / 'weights' / 'schema.json').read_text())
NAME, REPO = 'cifar_resnet20_simam', 'org/toy'
OPTIONS = {'attn_kwargs': {'e_lambda': 0.01}}
RECIPE = {'model_kwargs': {'attn_kwargs': {'e_lambda': 0.5}}, 'mean': None, 'interpolation': ''}


def trained_once() -> Any:
    model = timm.create_model(NAME, num_classes=7, **OPTIONS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    return model.eval()


def train_py_file(folder: Path, model: Any, **changes: Any) -> Path:
    """As timm's train.py saves it, with averaged weights beside the plain ones."""
    args = argparse.Namespace(model=NAME, lr=0.1, mean=[0.1, 0.2, 0.3], img_size=None, model_kwargs=OPTIONS)
    averaged = {k: v + 1 if k == 'fc.bias' else v for k, v in model.state_dict().items()}
    content = {
        'epoch': 0, 'arch': NAME, 'state_dict': model.state_dict(), 'optimizer': {'state': {}}, 'version': 2,
        'args': args, 'state_dict_ema': averaged, 'metric': 50.0, **changes,
    }  # fmt: skip
    path = folder / 'checkpoint-0.pth.tar'
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    return path


def command(*args: Any, env: dict[str, str], code: int = 0) -> str:
    script = [sys.executable, '-m', 'timm_attn.cli', *map(str, args)]
    run = subprocess.run(script, env=env, cwd=env['HF_HOME'], capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    return run.stdout if code == 0 else run.stderr


LOAD = """
import sys, timm, torch, timm_attn
model = timm.create_model(sys.argv[1], pretrained=True).eval()
torch.save((model(torch.load(sys.argv[2])), model.pretrained_cfg['mean']), sys.argv[3])
"""


def test_the_life_of_a_checkpoint(tmp_path: Path) -> None:
    """Train, publish, take the record into the manifest, load by name from a fresh cache, then offline."""
    model = trained_once()
    images = torch.randn(2, 3, 32, 32)
    torch.save(images, tmp_path / 'images.pt')
    file = train_py_file(tmp_path, model, state_dict_ema=None)
    shutil.copytree(PACKAGE, tmp_path / 'fork' / 'timm_attn', ignore=shutil.ignore_patterns('__pycache__', '*.json'))
    manifest = json.loads(manifest_path().read_text())

    def load(name: str, warning: str = '') -> tuple[torch.Tensor, Any]:
        script = [sys.executable, '-c', LOAD, name, tmp_path / 'images.pt', tmp_path / 'logits.pt']
        run = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0 and warning in run.stderr, run.stderr
        return torch.load(tmp_path / 'logits.pt')

    with LocalHub() as hub:
        env = {**hub.environ(tmp_path / 'hf'), 'PYTHONPATH': str(tmp_path / 'fork')}
        (tmp_path / 'hf').mkdir()
        env['TIMM_ATTN_HOME'] = str(tmp_path / 'store')
        (tmp_path / 'fork' / 'timm_attn' / 'weights_manifest.json').write_text(json.dumps(manifest))
        options = ['--model', NAME, '--repo', REPO, '--tag', 'toy', '--output', tmp_path / 'out']
        printed = command('weights', 'publish', file, *options, '--dataset', 'Toy', '--top1', 50, env=env)
        record = json.loads(printed)
        assert record['hub']['revision'] == hub.store.newest(REPO) and record['model_args'] == OPTIONS
        assert set(hub.store.files(REPO)) >= {'README.md', 'config.json', 'model.safetensors'}

        manifest['checkpoints'].append(record)
        (tmp_path / 'fork' / 'timm_attn' / 'weights_manifest.json').write_text(json.dumps(manifest))
        before = len(hub.requests)
        logits, mean = load(f'{NAME}.toy')
        torch.testing.assert_close(logits, model(images), rtol=0, atol=0)
        assert mean == (0.1, 0.2, 0.3) and len(hub.requests) > before
        assert f'{NAME}.toy: ok' in command('weights', 'verify', env=env)

        env['HF_HUB_OFFLINE'] = '1'
        before = len(hub.requests)
        torch.testing.assert_close(load(f'{NAME}.toy')[0], model(images), rtol=0, atol=0)
        assert len(hub.requests) == before
        del env['HF_HUB_OFFLINE']

        unpinned = load(f'hf-hub:{REPO}', f'{REPO}, model.safetensors is not in the manifest')  # timm's own way
        torch.testing.assert_close(unpinned[0], model(images), rtol=0, atol=0)
        before = len(hub.requests)
        load(f'hf-hub:{REPO}@{record["hub"]["revision"]}')
        asked = {path for _, path in hub.requests[before:]}
        assert not any(path.endswith('model.safetensors') for path in asked), 'the verified file is used'


def test_a_hub_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionRefusedError(111, 'Connection refused')

    monkeypatch.setattr('timm_attn.weights.publish.HfApi.create_repo', fail)
    out, file = str(tmp_path / 'out'), str(train_py_file(tmp_path, trained_once()))
    args = ['weights', 'publish', file, '--model', NAME, '--repo', REPO, '--tag', 'toy', '--output', out]
    assert cli.main(args) == 1
    error = capsys.readouterr().err
    assert 'The hub did not take org/toy (ConnectionRefusedError: ' in error and f'{out} is kept' in error


def record_of(tmp_path: Path, file: Path, **kwargs: Any) -> tuple[Any, dict[str, torch.Tensor], dict[str, Any]]:
    kwargs = {'tag': 'toy', 'license': 'MIT', **kwargs}
    record = prepare(file, kwargs.pop('name', NAME), REPO, tmp_path / 'out', **kwargs)
    state, config = tmp_path / 'out' / 'model.safetensors', tmp_path / 'out' / 'config.json'
    return record, load_file(state), json.loads(config.read_text())


def test_a_folder_says_what_the_file_said(tmp_path: Path) -> None:
    model = trained_once()
    record, state, config = record_of(tmp_path, train_py_file(tmp_path, model))
    torch.testing.assert_close(state['fc.bias'], model.fc.bias + 1)  # the averaged weights
    assert record.model_args == OPTIONS and config['model_args']['attn_kwargs'] == OPTIONS['attn_kwargs']
    cfg = config['pretrained_cfg']
    assert cfg['mean'] == [0.1, 0.2, 0.3] and cfg['tag'] == 'toy' and 'label_names' not in config | cfg
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert "'e_lambda': 0.01" in card and f"'hf-hub:{REPO}'" in card and 'No accuracy is stated.' in card
    assert 'ResNet-20 for 32x32 images with SimAM' in card and 'license: mit' in card and '7 classes' in card


def test_classes_go_to_the_hub_by_name(tmp_path: Path) -> None:
    names = [f'class of {i}' for i in range(7)]
    file = train_py_file(tmp_path, trained_once(), options=dict(class_names=names))
    record, _, config = record_of(tmp_path, file)
    assert config['label_names'] == names and list(record.cfg['label_names']) == names


def test_plain_weights_and_a_file_of_ours(tmp_path: Path) -> None:
    model = trained_once()
    _, state, _ = record_of(tmp_path, train_py_file(tmp_path, model), ema=False)
    torch.testing.assert_close(state['fc.bias'], model.fc.bias)
    shutil.move(tmp_path / 'out', tmp_path / 'ours')
    record, again, _ = record_of(
        tmp_path, tmp_path / 'ours' / 'model.safetensors', attn_kwargs={'e_lambda': 0.01},
        settings={'mean': [0.5] * 3}, metrics=[dict(dataset='Toy', split='test', top1=9.5, status='measured')],
    )  # fmt: skip
    assert record.model_args == OPTIONS and record.cfg['mean'] == (0.5,) * 3
    assert all(torch.equal(v, again[k]) for k, v in state.items())
    assert '| Toy | test | 9.5 |  | measured |' in (tmp_path / 'out' / 'README.md').read_text()


def test_a_checkpoint_of_our_runner(tmp_path: Path) -> None:
    """It has its recipe where train.py has its arguments."""
    recipe = dict(model_kwargs=OPTIONS, mean=[0.5] * 3, std=None, input_size=None)
    record, _, config = record_of(tmp_path, train_py_file(tmp_path, trained_once(), args=None, recipe=recipe))
    assert record.model_args == OPTIONS and record.cfg['mean'] == (0.5,) * 3
    assert config['model_args']['attn_kwargs'] == OPTIONS['attn_kwargs']


@pytest.mark.parametrize(
    'changes, kwargs, message',
    [
        ({}, dict(name='resnet18_sam'), "Unknown model 'resnet18_sam'"),
        ({}, dict(tag='My Tag'), "A tag is made of a-z, 0-9 and _, .* but got 'My Tag'"),
        ({}, dict(name='cifar_resnet20_srm'), "is a checkpoint of 'cifar_resnet20_simam', not of 'cifar_resnet20_srm'"),
        (
            {},
            dict(attn_kwargs={'e_lambda': 1}),
            r"trained with attn_kwargs {'e_lambda': 0.01}, but got {'e_lambda': 1}",
        ),
        ({}, dict(attn_kwargs={'foo': 1}, settings={}), r"trained with attn_kwargs {'e_lambda': 0.01}, but got"),
        ({}, dict(settings=RECIPE), r"trained with attn_kwargs {'e_lambda': 0.01}, but got {'e_lambda': 0.5}"),
        ({'args': None}, dict(attn_kwargs={'foo': 1}), "does not fit .*SimAM has no option 'foo'"),
        ({'args': None}, dict(attn_kwargs={'e_lambda': 1}, settings=RECIPE), r"{'e_lambda': 0.5}, but got"),
        ({}, dict(name=f'{NAME}.fmnist'), "Unknown model 'cifar_resnet20_simam.fmnist'"),
        ({}, dict(name='resnet18'), "Unknown model 'resnet18'"),
        ({}, dict(license='Apache 2.0'), "SPDX identifier such as Apache-2.0, but got 'Apache 2.0'"),
        (
            {},
            dict(metrics=[{'split': 'test', 'top1': 50}]),
            r"must come with its dataset.*but got {'split': 'test', 'top1': 50}",
        ),
        ({}, dict(metrics=[{'dataset': 'x', 'split': 'test', 'top1': 101}]), 'are in percent'),
        ({}, dict(settings={'mean': [0.1, 0.2]}), 'mean must have one value or 3 values, got 2'),
        ({'state_dict': {'x': torch.zeros(1)}, 'state_dict_ema': None}, {}, 'keys that the model lacks, such as x'),
    ],
)
def test_what_cannot_be_published(changes: Any, kwargs: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        record_of(tmp_path, train_py_file(tmp_path, trained_once(), **changes), **kwargs)
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint-0.pth.tar']


def test_what_a_file_or_a_recipe_says_of_the_model(tmp_path: Path) -> None:
    """Arguments without tensors would be lost silently; those of the training alone are not the model's."""
    said = {'drop_path_rate': 0.1, 'num_classes': 7, **OPTIONS}
    args = argparse.Namespace(model_kwargs=said, gp='max', bn_eps=None, mean=[0.1, 0.2, 0.3])
    file = train_py_file(tmp_path, trained_once(), args=args, arch=f'{NAME}.fmnist')  # fine-tuned from a tag
    settings = {'model_kwargs': {}, 'mean': None, 'interpolation': ''}  # a recipe's defaults
    record, _, config = record_of(tmp_path, file, settings=settings)
    assert record.model_args == {'global_pool': 'max', **OPTIONS}
    assert config['model_args'] == {**record.model_args, 'num_classes': 7, 'in_chans': 3}
    assert record.cfg['mean'] == (0.1, 0.2, 0.3) == tuple(config['pretrained_cfg']['mean'])
    copy = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True)
    assert copy.global_pool.pool_type == 'max'
    assert model_arguments('file', {'model_kwargs': {'act_layer': 'gelu'}}, {}) == {'act_layer': 'gelu'}
    shutil.rmtree(tmp_path / 'out')
    file = train_py_file(tmp_path, trained_once(), args=None, arch='cifarresnet')  # timm's name of it without args
    assert record_of(tmp_path, file, settings=RECIPE)[0].model_args == RECIPE['model_kwargs']


def test_one_channel(tmp_path: Path) -> None:
    model = timm.create_model(NAME, in_chans=1)
    record, _, config = record_of(tmp_path, train_py_file(tmp_path, model, args=None))
    assert record.cfg['input_size'] == (1, 28, 28) and len(record.cfg['mean']) == 1
    assert timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).conv1.in_channels == 1


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, 'No space left on device')

    file = train_py_file(tmp_path, trained_once())
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr('timm_attn.weights.publish._card', fail)
        record_of(tmp_path, file)
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint-0.pth.tar']
    (tmp_path / 'out').mkdir()  # an empty folder may be there
    record_of(tmp_path, file)
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {'README.md', 'config.json', 'model.safetensors'}


def test_a_folder_in_use_and_a_wrong_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = train_py_file(tmp_path, trained_once())
    with pytest.raises(OSError, match='is not empty: name a new folder'):
        prepare(file, NAME, REPO, tmp_path, tag='toy', license='MIT')
    assert cli.main(['weights', 'publish', str(file), '--model', NAME, '--repo', 'toy', '--tag', 'toy']) == 1
    assert "A repository is ORGANISATION/NAME, but got 'toy'" in capsys.readouterr().err
    out = ['--output', str(tmp_path / 'out'), '--dry-run']
    assert cli.main(['weights', 'publish', str(file), '--model', NAME, '--repo', REPO, '--tag', 'toy', *out]) == 0
    record = json.loads(capsys.readouterr().out)
    hub = {'id': REPO, 'revision': 'a' * 40, 'filename': 'model.safetensors'}
    Draft202012Validator(SCHEMA).validate({'schema_version': 1, 'checkpoints': [{**record, 'hub': hub}]})
    assert 'hub' not in record and record['size'] == (tmp_path / 'out' / 'model.safetensors').stat().st_size
