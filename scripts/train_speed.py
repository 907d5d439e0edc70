#!/usr/bin/env python3
"""The seconds of a training step under timm's train.py and under `timm-attn train`, in turns.

    TIMM_SCRIPTS=pytorch-image-models python scripts/train_speed.py DATA

DATA holds train.tar and validation.tar (scripts/fashion_mnist_to_tar.py). Both commands run the recipe fashion_mnist,
each in its own process, with one thread, on the same core, and take turns step by step, so that what disturbs the
machine disturbs both. The next pair of runs begins with the other and has another core. A step is from one forward pass
to the next: it has the loading of the images, the backward pass, the optimiser and the progress report in it. Prints
the medians of each pair of runs, and over the pairs the mean of the median ratio of a step to its neighbour.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from scipy import stats

from timm_attn.training.recipe import load_recipe
from timm_attn.training.summary import summary

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
    if args.steps <= SKIPPED:
        sys.exit(f'the first {SKIPPED} steps are not counted, but got --steps {args.steps}')
    train_py = Path(os.environ.get('TIMM_SCRIPTS', '')) / 'train.py'
    if not train_py.is_file():
        sys.exit(f'TIMM_SCRIPTS must be the folder of a checkout of timm with train.py, but there is no {train_py}')
    cores = sorted(os.sched_getaffinity(0))
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        options = ['--config', str(write_recipe(work)), '--model', args.model, '--data-dir', str(args.data)]
        commands = [sys.executable, str(train_py)], [sys.executable, '-m', 'timm_attn.cli', 'train']
        for i in range(args.pairs):
            outputs = work / f'theirs_{i}', work / f'ours_{i}'
            runs = [([*c, *options, '--output', str(o / 'run')], o) for c, o in zip(commands, outputs, strict=True)]
            in_turns(runs[:: -1 if i % 2 else 1], args.steps, cores[i % len(cores)])
            theirs, ours = (step_times(output) for output in outputs)
            ratios.append([statistics.median(map(log_ratio, t, o)) for t, o in zip(theirs, ours, strict=True)])
            medians = [1000 * statistics.median(times) for times in (theirs[0], ours[0])]
            print(f'pair {i + 1}: train.py {medians[0]:.0f} ms, timm-attn train {medians[1]:.0f} ms a step, '
                  f'{math.exp(ratios[-1][0]):.3f} of its speed', flush=True)  # fmt: skip
    for name, found in zip(('time', 'CPU time'), map(summary, zip(*ratios, strict=True)), strict=True):
        half = stats.t.ppf(0.975, found.n - 1) * (found.sd or math.nan) / math.sqrt(found.n)
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


def in_turns(runs: Sequence[tuple[list[str], Path]], count: int, core: int) -> None:
    """Runs two commands for `count` steps each; they take turns after every step."""
    pipes = [os.pipe(), os.pipe()]
    os.write(pipes[0][1], b'.')
    processes = []
    for (command, output), mine, yours in zip(runs, pipes, reversed(pipes), strict=True):
        output.mkdir()
        paths = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get('PYTHONPATH', '')])
        said = dict(STEPS=output / 'steps', COUNT=count, MY_TURN=mine[0], YOUR_TURN=yours[1])
        env = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1', **{k: str(v) for k, v in said.items()}}
        command = ['taskset', '--cpu-list', str(core), *command]
        with open(output / 'log', 'w') as log:
            processes.append(
                subprocess.Popen(command, env=env, pass_fds=(mine[0], yours[1]), stdout=log, stderr=subprocess.STDOUT)
            )
    for _, write in pipes:  # a run whose neighbour has failed must see the end of its pipe
        os.close(write)
    failed = [output for process, (_, output) in zip(processes, runs, strict=True) if process.wait()]
    for read, _ in pipes:
        os.close(read)
    if failed:
        sys.exit('\n'.join((output / 'log').read_text()[-3000:] for output in failed))


def step_times(output: Path) -> list[tuple[float, ...]]:
    """The seconds of a run's steps, and their CPU seconds."""
    lines = (output / 'steps').read_text().splitlines()[SKIPPED:]
    return list(zip(*([float(x) for x in line.split()] for line in lines), strict=True))


def log_ratio(a: float, b: float) -> float:
    return math.log(a / b)


if __name__ == '__main__':
    sys.exit(main())
