"""Two processes on the CPU (gloo, torchrun) against one."""

import csv
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.data import DistributedSampler

from tests.support.commands import ROOT, start
from tests.support.images import CONFIG, first_images, group_norm_net, short, write_folders
from timm_attn.data.datasets import Subset
from timm_attn.training.engine import Engine
from timm_attn.training.loaders import eval_loader
from timm_attn.training.lock import HOLDER, LOCK, held
from timm_attn.training.processes import ALONE
from timm_attn.training.validate import validate


def torchrun(*command: object, fails: bool = False) -> str:
    """Runs a command in two processes on this machine and returns what they print; their errors where it must fail."""
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    free_port = ['--rdzv-backend', 'c10d', '--rdzv-endpoint', '127.0.0.1:0', '--local-addr', '127.0.0.1']
    done = start(*launcher, *free_port, *command)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr if fails else done.stdout


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp('images'), 99)  # odd: the ranks' shares are filled up


@pytest.fixture(scope='module')
def ended(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('ddp')
    torchrun(ROOT / 'tests' / 'support' / 'ddp_worker.py', folders, out)
    return out


def states(folder: Path, name: str) -> Sequence[dict[str, torch.Tensor]]:
    return [torch.load(folder / f'{name}{rank}.pt') for rank in range(2)]


def test_two_processes_train_as_one(ended: Path) -> None:
    order = list(
        DistributedSampler(first_images(), num_replicas=1, rank=0)
    )  # its batches are the two processes' together
    engine = Engine(group_norm_net(), eval_loader(Subset(first_images(), order), CONFIG, 20), short(no_aug=True))
    start = {k: v.clone() for k, v in engine.model.state_dict().items()}
    engine.epoch(0)
    assert engine.updates == 5
    for ours in states(ended, 'five_steps'):
        for key, single in engine.model.state_dict().items():
            torch.testing.assert_close(ours[key], single, rtol=1e-5, atol=1e-5)
        assert (ours['fc.weight'] - start['fc.weight']).abs().max() > 1e-3


def test_nets_with_batch_norm_finish_and_the_ranks_agree(ended: Path, folders: Path) -> None:
    first, second = states(ended, 'whole_run')
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(key.startswith('ema.') and 'running_mean' in key for key in first)
    with open(ended / 'run' / 'summary.csv', newline='') as f:
        table = list(csv.DictReader(f))
    assert [row['epoch'] for row in table] == ['1', '2']
    # 99 images over two processes: none is counted twice
    alone = validate('cifar_resnet20_bam', folders, weights=ended / 'run' / 'last.pth.tar')
    assert alone['top1'] == pytest.approx(float(table[1]['top1_ema']), abs=0.006)


def test_validate_in_two_processes(ended: Path, folders: Path) -> None:
    weights = ended / 'run' / 'last.pth.tar'
    out = torchrun(
        '-m', 'timm_attn.cli', 'validate', '--model', 'cifar_resnet20_bam', '--data-dir', folders,
        '--checkpoint', weights, '--device', 'cpu',
    )  # fmt: skip
    (line,) = out.splitlines()  # the first process alone prints
    top1 = validate('cifar_resnet20_bam', folders, weights=weights)['top1']
    assert f'top1 {top1:.6g},' in line and 'images 99' in line


def test_a_folder_in_use_ends_all_processes(folders: Path, tmp_path: Path) -> None:
    """The first alone knows, the others must not wait for it; once it is free they go on, and lock it together."""
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump({**vars(short(batch_size=10, epochs=1)), 'workers': 0}))
    command = ['-m', 'timm_attn.cli', 'train', '--config', tmp_path / 'r.yaml', '--model', 'cifar_resnet20_bam']
    command += ['--data-dir', folders, '--output', tmp_path / 'out']
    with held(tmp_path / 'out', ALONE):
        said = torchrun(*command, fails=True)
        refusal = f'timm-attn: {tmp_path / "out"} is in use by process {os.getpid()} on {socket.gethostname()}: '
        assert refusal in said
        assert {path.name for path in (tmp_path / 'out').iterdir()} == {LOCK, HOLDER}
    torchrun(*command)
    assert (tmp_path / 'out' / 'last.safetensors').exists() and not (tmp_path / 'out' / HOLDER).exists()
    said = torchrun(*command, fails=True)
    assert 'already has a run: go on with --resume' in said
    torchrun(*command, '--resume')
