"""Two processes on the CPU (gloo, torchrun) against one, and a run that is killed."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.commands import ROOT, run
from tests.support.downstream import MODEL, same, tiny
from tests.support.downstream_ddp import three_steps
from timm_attn.downstream.train import train
from timm_attn.downstream.trained import evaluate
from timm_attn.training.processes import ALONE


@pytest.fixture(scope='module')
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('ddp')
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    free_port = ['--rdzv-backend', 'c10d', '--rdzv-endpoint', '127.0.0.1:0', '--local-addr', '127.0.0.1']
    run(*launcher, *free_port, ROOT / 'tests' / 'support' / 'downstream_ddp.py', out)
    return out


def test_two_processes_train_as_one(ended: Path) -> None:
    model, loss = three_steps(ALONE, 2)
    ranks = [torch.load(ended / f'three_steps{rank}.pt') for rank in range(2)]
    for key, value in model.state_dict().items():
        assert torch.equal(ranks[0]['state'][key], ranks[1]['state'][key])
        torch.testing.assert_close(ranks[0]['state'][key], value, rtol=1e-4, atol=1e-5)
    assert ranks[0]['loss'] == ranks[1]['loss'] == pytest.approx(loss, rel=1e-5)


def test_two_processes_measure_as_one(ended: Path) -> None:
    """Five scenes over two processes: none is counted twice."""
    first, second = (torch.load(ended / f'metrics{rank}.pt') for rank in range(2))
    alone = evaluate(ended / 'run' / 'last.pth.tar', Path(), dict(device='cpu'))
    assert first == second == pytest.approx(alone, abs=1e-9) and {'box_AP', 'mask_AP'} <= alone.keys()


def test_two_processes_share_the_pictures(ended: Path) -> None:
    """Three pictures over two processes: each is written once, and both know all files, in order."""
    first, second = (torch.load(ended / f'predicted{rank}.pt', weights_only=False) for rank in range(2))
    assert first == second and [file.name for file in first] == [
        f'{index}_mask_rcnn.{kind}' for index in range(3) for kind in ('png', 'csv')
    ]
    assert sorted(first) == sorted((ended / 'found').iterdir())


def test_kill_9_and_resume(tmp_path: Path) -> None:
    recipe, killed = tiny(epochs=4, workers=1), tmp_path / 'killed'
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(recipe)))
    command = [sys.executable, '-m', 'timm_attn.cli', 'downstream', 'train', '--config', tmp_path / 'r.yaml']
    process = subprocess.Popen(
        [*map(str, command), '--model', MODEL, '--output', str(killed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    while not (killed / 'summary.csv').exists():  # until the first epoch's end
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.Random().uniform(0, 1))
    process.kill()
    process.wait()
    train(recipe, MODEL, Path(), killed, resume=True)
    train(recipe, MODEL, Path(), tmp_path / 'whole')
    assert same(tmp_path / 'whole', killed)
