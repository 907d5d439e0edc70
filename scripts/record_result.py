#!/usr/bin/env python3
"""Measures the last epoch of a finished training and writes its result file, for the tables of README.md.

    python scripts/record_result.py cifar_resnet20_se runs/cifar_resnet20_se.seed0 runs/data results/fashion_mnist \
        --recipe fashion_mnist --dataset Fashion-MNIST --command "$COMMAND" --hardware '1 core of an x86-64 CPU'
"""

import argparse
import datetime
import sys
from pathlib import Path

import timm
import torch

import timm_attn  # noqa: F401
from timm_attn.training import checkpoint
from timm_attn.training.recipe import recipe_of
from timm_attn.training.runner import LAST
from timm_attn.training.validate import validate

from results import Result, save_result  # isort: skip

MARGIN = 2  # images: near-ties may fall differently than in the training


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model')
    parser.add_argument('run', type=Path, help='the --output of the training')
    parser.add_argument('data', type=Path, help='its --data-dir')
    parser.add_argument('results', type=Path, help='folder of the result files')
    parser.add_argument('--recipe', required=True, help='its --config')
    parser.add_argument('--dataset', required=True, help='in words')
    parser.add_argument('--split', default='test', help='what was measured, in words; default: %(default)s')
    parser.add_argument('--command', required=True, help='what trained it')
    parser.add_argument('--hardware', required=True)
    args = parser.parse_args()
    state = checkpoint.load(args.run / LAST)
    recipe, rows = recipe_of(state['recipe'], str(args.run)), state['rows']
    if state['arch'] != args.model or len(rows) != recipe.epochs:
        sys.exit(
            f'{args.run} has {len(rows)} of {recipe.epochs} epochs of {state["arch"]}: not a finished {args.model}'
        )
    measured = validate(args.model, args.data, weights=args.run / LAST)
    expected = rows[-1].get('top1_ema', rows[-1]['top1'])
    if abs(measured['top1'] - expected) * measured['images'] / 100 > MARGIN + 0.5:
        sys.exit(f'{args.run} has top-1 {expected} % in its table, but {measured["top1"]:.2f} % here')
    result = Result(
        model=args.model,
        recipe=args.recipe,
        seed=recipe.seed,
        epochs=recipe.epochs,
        dataset=args.dataset,
        split=args.split,
        images=int(measured['images']),
        top1=round(measured['top1'], 2),
        hardware=args.hardware,
        command=args.command,
        date=datetime.date.today().isoformat(),
        torch=torch.__version__.partition('+')[0],
        timm=timm.__version__,
    )
    print(save_result(result, args.results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
