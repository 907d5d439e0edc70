"""timm's own scripts on our models, and our runner against timm's train.py; they need TIMM_SCRIPTS."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.commands import ROOT, run
from tests.support.images import MODEL, short, write_folders
from tests.support.timm_scripts import script


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp('images'), 220)


CHANGES = {
    'plain': dict(workers=1, device_modules=['timm_attn', 'tests.support.loss_recorder']),
    'more': dict(
        workers=2, device_modules=['timm_attn', 'timm_attn.training.timm_patches', 'tests.support.loss_recorder'],
        train_crop_mode='pad4', train_img_sizes=[16], train_batches_per_epoch=50, color_jitter=0.4, smoothing=0.1,
        grad_accum_steps=2, clip_grad=1.0, channels_last=True, warmup_epochs=1, sched_on_updates=True, drop=0.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CHANGES)
def test_the_first_50_losses_are_those_of_train_py(name: str, folders: Path, tmp_path: Path) -> None:
    train_py = script('train.py')
    recipe = short(batch_size=4, epochs=1 if name == 'plain' else 2, num_classes=10, lr=0.02, **CHANGES[name])
    values = {k: v for k, v in vars(recipe).items() if v is not None}
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(values))
    common = ['--config', tmp_path / 'r.yaml', '--model', MODEL, '--data-dir', folders]
    theirs, ours = tmp_path / 'theirs', tmp_path / 'ours'
    run(sys.executable, train_py, *common, '--output', tmp_path / 'timm', LOSSES=theirs)
    kept = ['--set', f'workers={recipe.workers}']  # whatever cores there are
    run(sys.executable, '-m', 'timm_attn.cli', 'train', *common, *kept, '--output', tmp_path / 'out', LOSSES=ours)
    losses = [[float(line) for line in file.read_text().split()] for file in (theirs, ours)]
    assert len(losses[0]) >= 50
    # of the first epoch: train.py's workers live on, and draw other random numbers in the second
    assert losses[1][:50] == pytest.approx(losses[0][:50], rel=1e-4)
    assert max(losses[0][:50]) - min(losses[0][:50]) > 0.2


@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_validate_knows_the_zoo(start: str, folders: Path, tmp_path: Path) -> None:
    (tmp_path / 'sitecustomize.py').write_text(f'import multiprocessing\nmultiprocessing.set_start_method({start!r})\n')
    out = run(
        sys.executable, '-m', 'timm_attn.run', script('validate.py'), '--model', MODEL, '--data-dir', folders,
        '--split', 'validation', '--device', 'cpu', '--workers', 1, '--pretrained',
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')]),
    )  # fmt: skip
    assert '"top1": 9' in out  # the bundled weights have 93 %


def test_benchmark_knows_the_zoo() -> None:
    out = run(
        sys.executable, '-m', 'timm_attn.run', script('benchmark.py'), '--model', MODEL, '--bench', 'inference',
        '--num-bench-iter', 5, '--num-warm-iter', 1, '--batch-size', 2, '--device', 'cpu', '--precision', 'float32',
    )  # fmt: skip
    assert '"infer_samples_per_sec"' in out


def test_train_imagenet_trains_in_two_processes(folders: Path, tmp_path: Path) -> None:
    script('train.py')
    out = run(
        ROOT / 'scripts' / 'train_imagenet.sh', 'resnet18_simam', folders, 2, '--batch-size', 10, '--num-classes', 10,
        '--device', 'cpu', '--input-size', 3, 32, 32, '--epochs', 1, '--workers', 1, '--output', tmp_path,
        '--device-modules', 'timm_attn', 'timm_attn.training.timm_patches',
    )  # fmt: skip
    assert 'Process 1, total 2' in out and '"validation"' in out


def test_train_and_validate_know_with_attention(folders: Path, tmp_path: Path) -> None:
    """A net by its parts, and train.py's checkpoint of it."""
    net = ['--model', 'with_attention', '--num-classes', 10]
    kwargs = ['--model-kwargs', 'backbone=test_convnext', 'attention=srm', 'at=stages', 'start=identity']
    run(
        sys.executable, script('train.py'), *net, *kwargs, '--data-dir', folders, '--device-modules', 'timm_attn',
        '--device', 'cpu', '--img-size', 32, '--epochs', 1, '--batch-size', 20, '--workers', 1, '--output', tmp_path,
        '--experiment', 'one',
    )  # fmt: skip
    out = run(
        sys.executable, '-m', 'timm_attn.run', script('validate.py'), *net, *kwargs, '--data-dir', folders,
        '--split', 'validation', '--device', 'cpu', '--img-size', 32, '--workers', 1,
        '--checkpoint', tmp_path / 'one' / 'last.pth.tar',
    )  # fmt: skip
    assert '"top1"' in out
