#!/usr/bin/env python3
"""The seconds of a training step under timm's train.py and under `timm-attn train`, in turns.

    TIMM_SCRIPTS=pytorch-image-models python scripts/train_speed.py DATA

DATA holds train.tar and validation.tar (scripts/fashion_mnist_to_tar.py). Both run the recipe fashion_mnist with one
thread. A step is from one forward pass to the next: it has the loading of the images, the backward pass, the
optimiser and the progress report in it. Prints the medians of each pair of runs and the ratio over all pairs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from timm_attn.training.recipe import load_recipe

HERE = Path(__file__).resolve().parent
SKIPPED = 5  # steps before the allocator and oneDNN have settled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--model', default='cifar_resnet20_simam')
    parser.add_argument('--pairs', type=int, default=5)
    parser.add_argument('--steps', type=int, default=40, help='of each run; default: %(default)s')
    args = parser.parse_args()
    train_py = Path(os.environ.get('TIMM_SCRIPTS', '')) / 'train.py'
    if not train_py.is_file():
        sys.exit(f'TIMM_SCRIPTS must be the folder of a checkout of timm with train.py, but there is no {train_py}')
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        recipe = write_recipe(work)
        options = ['--config', str(recipe), '--model', args.model, '--data-dir', str(args.data)]
        commands = [sys.executable, str(train_py)], [sys.executable, '-m', 'timm_attn.cli', 'train']
        pairs = []
        for i in range(args.pairs):
            runs = [[*c, *options, '--output', f'{folder}/{n}_{i}'] for n, c in enumerate(commands)]
            theirs, ours = (step_times(run, work, args.steps) for run in runs)
            pairs.append((theirs, ours))
            milliseconds = f'train.py {1000 * theirs[0]:.0f} ms, timm-attn train {1000 * ours[0]:.0f} ms'
            print(f'pair {i + 1}: {milliseconds} a step', flush=True)
    for name, which in ('time', 0), ('CPU time', 1):
        ratios = sorted(theirs[which] / ours[which] for theirs, ours in pairs)
        print(f'speed by {name}: {statistics.median(ratios):.3f} of train.py ({ratios[0]:.3f} to {ratios[-1]:.3f})')
    return 0


def write_recipe(work: Path) -> Path:
    """The recipe fashion_mnist with its steps timed, in a file."""
    changes = dict(device='cpu', device_modules=['timm_attn', 'step_times'])
    values = {k: v for k, v in vars(load_recipe('fashion_mnist', changes)).items() if v is not None}
    path = work / 'recipe.yaml'
    path.write_text(yaml.safe_dump(values))
    return path


def step_times(command: list[str], work: Path, count: int) -> tuple[float, float]:
    """The median seconds of the first steps of a run, and their median CPU seconds."""
    steps = work / 'steps'
    steps.write_text('')
    paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1', 'STEPS': str(steps), 'LAST_STEP': str(count)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-3000:])
    begun = [[float(x) for x in line.split()] for line in steps.read_text().splitlines()[SKIPPED:]]
    wall, cpu = (statistics.median(b - a for a, b in zip(s, s[1:], strict=False)) for s in zip(*begun, strict=True))
    return wall, cpu


if __name__ == '__main__':
    sys.exit(main())
