"""What each process of the tests of distributed training does; started by torchrun.

torchrun --nproc-per-node 2 tests/support/ddp_worker.py FOLDER_OF_IMAGES OUT
"""

import sys
from pathlib import Path

import torch

from tests.support.images import CONFIG, first_images, group_norm_net, short
from timm_attn.training import runner
from timm_attn.training.engine import Engine
from timm_attn.training.loaders import train_loader
from timm_attn.training.processes import joined


def five_steps(out: Path) -> None:
    """Without batch statistics, half of each global batch in each process."""
    with joined('cpu') as processes:
        recipe = short(batch_size=10, no_aug=True)
        engine = Engine(group_norm_net(), train_loader(first_images(), CONFIG, recipe, processes), recipe, processes)
        engine.epoch(0)
        torch.save(engine.model.state_dict(), out / f'five_steps{processes.rank}.pt')


def whole_run(folders: Path, out: Path) -> None:
    """A net with batch norms, from the images to the weights; each process keeps the weights that it ends with."""
    made, prepare = [], runner._prepare

    def kept(*args: object) -> object:
        made.append(prepare(*args))  # type: ignore[arg-type]
        return made[0]

    runner._prepare = kept  # type: ignore[assignment]
    runner.train(
        short(batch_size=10, model_ema=True, model_ema_decay=0.5),
        'cifar_resnet20_bam',
        folders,
        out / 'run',
        resume=True,
    )
    engine = made[0][0]
    states = {
        **engine.model.state_dict(),
        **{f'ema.{k}': v for k, v in engine.task.get_checkpoint_state(ema=True)['state_dict_ema'].items()},
    }
    torch.save(states, out / f'whole_run{engine.processes.rank}.pt')


if __name__ == '__main__':
    with joined('cpu'):  # once: processes that part and meet again may miss each other
        five_steps(Path(sys.argv[2]))
        whole_run(Path(sys.argv[1]), Path(sys.argv[2]))
