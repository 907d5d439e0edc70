#!/usr/bin/env python3
"""Measures the bundled checkpoints again and compares with weights_manifest.json; exit status 1 on a difference.

    python scripts/measure_bundled.py /usr/share/datasets/fashion-mnist

The folder holds the four idx files of Fashion-MNIST, from Debian's package dataset-fashion-mnist.
"""

import argparse
import sys
from pathlib import Path

import timm
import torch
from timm.data import resolve_model_data_config

import timm_attn  # noqa: F401
from timm_attn.data.fashion_mnist import BUNDLED, FashionMNIST
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import eval_loader
from timm_attn.weights import checkpoints

MARGIN = 2  # images: near-ties may fall differently on another CPU


def measure(model: torch.nn.Module, data: Path) -> list[tuple[str, int, float]]:
    """(split, number of images, top-1 in %) on the complete test set and on its bundled part."""
    sets = {'test': FashionMNIST('validation', data), 'test, bundled part': FashionMNIST('validation', BUNDLED)}
    loaders = {split: eval_loader(images, resolve_model_data_config(model)) for split, images in sets.items()}
    measured = {split: evaluate(model, loader) for split, loader in loaders.items()}
    return [(split, int(found['images']), found['top1']) for split, found in measured.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    data = parser.parse_args().data
    wrong = 0
    for checkpoint in (c for c in checkpoints() if c.kind == 'bundled'):
        model = timm.create_model(checkpoint.full_name, pretrained=True)
        claimed = {m['split']: m['top1'] for m in checkpoint.metrics}
        for split, images, top1 in measure(model, data):
            difference = abs(top1 - claimed[split]) * images / 100
            verdict = 'equal' if difference < 0.5 else f'{difference:.0f} images apart'
            wrong += difference > MARGIN
            print(
                f'{checkpoint.full_name}  Fashion-MNIST {split} ({images:,} images): top-1 {top1:.2f} %, '
                f'manifest {claimed[split]:.2f} %, {verdict}'
            )
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
