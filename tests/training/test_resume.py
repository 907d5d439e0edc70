"""A run goes on exactly where it was interrupted, and a run that fails keeps its last checkpoint."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.support.commands import ROOT
from tests.support.images import MODEL, rows, same, short
from timm_attn.training import checkpoint
from timm_attn.training.engine import Engine, NonFiniteLossError
from timm_attn.training.recipe import Recipe
from timm_attn.training.runner import train

ENGINE = dict(model_ema=True, model_ema_decay=0.9, grad_accum_steps=2, amp=True, amp_dtype='bfloat16', clip_grad=1.0)


@pytest.mark.parametrize('changes', [{}, dict(ENGINE, epochs=3, workers=1)], ids=['plain', 'all'])
def test_ctrl_c_and_resume(changes: dict[str, Any], folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    recipe, whole, broken = short(**changes), tmp_path / 'whole', tmp_path / 'broken'
    train(recipe, MODEL, folders, whole)
    step, seen = Engine._step, 0

    def interrupted(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 8:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, '_step', interrupted)
        with pytest.raises(
            RuntimeError, match=r'Interrupted\. .*last.pth.tar has the run up to the end of epoch 1; --resume'
        ):
            train(recipe, MODEL, folders, broken)
    assert not (broken / 'last.safetensors').exists()
    with pytest.raises(ValueError, match='already has a run: go on with --resume'):
        train(recipe, MODEL, folders, broken)
    train(recipe, MODEL, folders, broken, resume=True)
    assert same(whole, broken)
    if recipe.model_ema:
        averages = [load_file(run / 'last_ema.safetensors') for run in (whole, broken)]
        assert all(torch.equal(averages[0][k], averages[1][k]) for k in averages[0])
        assert any(not torch.equal(averages[0][k], v) for k, v in load_file(whole / 'last.safetensors').items())
        assert 'top1_ema' in rows(whole)[0]


def test_kill_9_and_resume(folders: Path, tmp_path: Path) -> None:
    recipe = short(epochs=4, workers=1)
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(recipe)))
    train(recipe, MODEL, folders, tmp_path / 'whole')
    killed = tmp_path / 'killed'
    command = [sys.executable, '-m', 'timm_attn.cli', 'train', '--config', str(tmp_path / 'r.yaml'), '--model', MODEL]
    process = subprocess.Popen(
        [*command, '--data-dir', str(folders), '--output', str(killed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    while not (killed / 'summary.csv').exists():  # until the first epoch's end
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.Random().uniform(0, 1.5))
    process.kill()
    process.wait()
    train(recipe, MODEL, folders, killed, resume=True)
    assert same(tmp_path / 'whole', killed)


def test_resume_of_something_else(folders: Path, finished: Path, tmp_path: Path) -> None:
    def put(state: dict[str, Any]) -> None:
        checkpoint.save(tmp_path / 'last.pth.tar', state)

    def refused(message: str, recipe: Recipe | None = None) -> None:
        with pytest.raises(ValueError, match=message):
            train(recipe or short(), MODEL, folders, tmp_path, resume=True)

    state = checkpoint.load(finished / 'last.pth.tar')
    put(state)
    refused(r'trained otherwise: batch_size \(20, now 10\), lr \(0.05, now 0.1\)', short(lr=0.1, batch_size=10))
    put({**state, 'arch': 'resnet18'})
    refused("is a checkpoint of 'resnet18', not of 'cifar_resnet20_simam'")
    put({**state, 'random': state['random'] * 2})
    refused('is of 2 processes, but there are 1 now')
    put({k: v for k, v in state.items() if k != 'random'})
    refused('not written by this runner')
    put({k: v for k, v in state.items() if k != 'state_dict'})
    refused('has no state_dict')
    (tmp_path / 'last.pth.tar').write_bytes((finished / 'last.pth.tar').read_bytes()[:5000])
    refused('last.pth.tar is a damaged archive')


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / 'last.pth.tar'
    checkpoint.save(path, dict(state_dict=torch.arange(3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # a file that grows further fails, as on a full disk
    try:
        with pytest.raises(
            RuntimeError, match=r'last.pth.tar \([\d,]+ bytes\) cannot be written: .*; the last one is kept'
        ):
            checkpoint.save(path, dict(state_dict=torch.zeros(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(checkpoint.load(path)['state_dict'], torch.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ['last.pth.tar']


def test_a_loss_that_is_no_number_stops_the_run(folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    forward, taken = timm.task.ClassificationTask.forward, []

    def poisoned(self: Any, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        taken.append(labels)
        result = forward(self, images, labels)
        return {**result, 'loss': result['loss'] * float('nan')} if len(taken) == 8 else result

    monkeypatch.setattr(timm.task.ClassificationTask, 'forward', poisoned)
    with pytest.raises(NonFiniteLossError, match='The loss is nan at step 3 of epoch 2') as caught:
        train(short(), MODEL, folders, tmp_path / 'out')
    text = str(caught.value)
    files = [Path(f) for f in text.partition('of the batch: ')[2].partition('. ')[0].split(', ')]
    assert [int(f.parent.name[0]) for f in files] == taken[-1].tolist()  # the very images, in the batch's order
    assert 'last.pth.tar has the run up to the end of epoch 1' in text
    assert checkpoint.load(tmp_path / 'out' / 'last.pth.tar')['epoch'] == 0


def test_a_last_update_that_diverges_keeps_the_checkpoint_before(folders: Path, tmp_path: Path) -> None:
    """Its loss was finite: only the test after it tells."""
    output = tmp_path / 'out'
    with pytest.raises(NonFiniteLossError, match='validation loss is nan after epoch 1. .*last.pth.tar has its beg'):
        train(short(epochs=1, batch_size=100, lr=1e38), MODEL, folders, output)
    state = checkpoint.load(output / 'last.pth.tar')['state_dict']
    assert all(v.isfinite().all() for v in state.values()) and not (output / 'last.safetensors').exists()
