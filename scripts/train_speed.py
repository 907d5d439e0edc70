#!/usr/bin/env python3
"""The seconds of a training step under timm's train.py and under `timm-attn train`, side by side.

    TIMM_SCRIPTS=pytorch-image-models python scripts/train_speed.py DATA

DATA holds train.tar and validation.tar (scripts/fashion_mnist_to_tar.py). Both run the recipe fashion_mnist with one
thread, at the same time on a core each, so that what disturbs the machine disturbs both; the next pair has the cores
the other way round. A step is from one forward pass to the next: it has the loading of the images, the backward pass,
the optimiser and the progress report in it. Prints the medians of each pair of runs and their mean ratio.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from timm_attn.training.recipe import load_recipe
from timm_attn.training.statistics import summary, t_quantile

HERE = Path(__file__).resolve().parent
SKIPPED = 5  # steps before the allocator and oneDNN have settled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--model', default='cifar_resnet20_simam')
    parser.add_argument('--pairs', type=int, default=10)
    parser.add_argument('--steps', type=int, default=40, help='of each run; default: %(default)s')
    args = parser.parse_args()
    if args.pairs < 2:
        sys.exit(f'an interval needs two pairs at least, but got --pairs {args.pairs}')
    train_py = Path(os.environ.get('TIMM_SCRIPTS', '')) / 'train.py'
    if not train_py.is_file():
        sys.exit(f'TIMM_SCRIPTS must be the folder of a checkout of timm with train.py, but there is no {train_py}')
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit('two cores are needed')
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        recipe = write_recipe(work)
        options = ['--config', str(recipe), '--model', args.model, '--data-dir', str(args.data)]
        commands = [sys.executable, str(train_py)], [sys.executable, '-m', 'timm_attn.cli', 'train']
        pairs = []
        for i in range(args.pairs):
            begun = [
                begin([*command, *options], work / f'{n}_{i}', args.steps, cores[(n + i) % 2])
                for n, command in enumerate(commands)
            ]
            theirs, ours = (step_times(process, work / f'{n}_{i}') for n, process in enumerate(begun))
            pairs.append((theirs, ours))
            milliseconds = f'train.py {1000 * theirs[0]:.0f} ms, timm-attn train {1000 * ours[0]:.0f} ms'
            print(f'pair {i + 1}: {milliseconds} a step', flush=True)
    for name, which in ('time', 0), ('CPU time', 1):
        found = summary([math.log(theirs[which] / ours[which]) for theirs, ours in pairs])
        half = t_quantile(0.975, found.n - 1) * (found.sd or math.nan) / math.sqrt(found.n)
        mean, low, high = (math.exp(x) for x in (found.mean, found.mean - half, found.mean + half))
        print(f'speed by {name}: {mean:.3f} of train.py, 95 % interval {low:.3f} to {high:.3f}')
    return 0


def write_recipe(work: Path) -> Path:
    """The recipe fashion_mnist with its steps timed, in a file."""
    changes = dict(device='cpu', device_modules=['timm_attn', 'step_times'])
    values = {k: v for k, v in vars(load_recipe('fashion_mnist', changes)).items() if v is not None}
    path = work / 'recipe.yaml'
    path.write_text(yaml.safe_dump(values))
    return path


def begin(command: list[str], output: Path, count: int, core: int) -> 'subprocess.Popen[str]':
    """Starts a run of so many steps on a core; it writes when each begins."""
    output.mkdir()
    paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1', 'STEPS': str(output / 'steps')}
    command = ['taskset', '--cpu-list', str(core), *command, '--output', str(output / 'run')]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, env={**env, 'LAST_STEP': str(count)}, **pipes)


def step_times(process: 'subprocess.Popen[str]', output: Path) -> tuple[float, float]:
    """The median seconds of a run's steps, and their median CPU seconds."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(said[-3000:])
    lines = (output / 'steps').read_text().splitlines()[SKIPPED:]
    begun = [[float(x) for x in line.split()] for line in lines]
    wall, cpu = (statistics.median(b - a for a, b in zip(s, s[1:], strict=False)) for s in zip(*begun, strict=True))
    return wall, cpu


if __name__ == '__main__':
    sys.exit(main())
