#!/usr/bin/env python3
"""What start='identity' is worth where an attention replaces a trained one: the table of docs/attach.md.

    python scripts/replace_evidence.py

Top-1 on the 1,000 bundled test images of Fashion-MNIST of the bundled cifar_resnet20 nets, right after
attach(..., replace=True) and after one epoch on the 1,000 bundled training images (as scripts/warm_start_evidence.py
trains), mean over the seeds. 'drawn' starts without images, 'example' with 256 training images.
"""

import datetime
import statistics
import warnings
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from warm_start_evidence import train

import timm_attn
from timm_attn.data.fashion_mnist import FashionMNIST
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import eval_loader

PAIRS = [('se', 'eca'), ('se', 'cbam'), ('se', 'gc'), ('eca', 'cbam'), ('cbam', 'eca')]
STARTS = ('none', 'drawn', 'example')
SEEDS = (0,)


def trained(old: str) -> nn.Module:
    """A bundled net."""
    return timm.create_model(f'cifar_resnet20_{old}', pretrained=True).eval()


def replaced(old: str, new: str, start: str, seed: int, images: Tensor) -> nn.Module:
    """A bundled net with another attention in the place of its own."""
    torch.manual_seed(seed)
    kwargs: dict[str, Any] = {} if start == 'none' else dict(start='identity')
    if start == 'example':
        kwargs['example'] = images[:256]
    return timm_attn.attach(trained(old), new, replace=True, **kwargs)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    config = resolve_model_data_config(trained('se'))
    images, labels = next(iter(eval_loader(FashionMNIST('train'), config, batch_size=1000)))
    tests = eval_loader(FashionMNIST('validation'), config)
    print(f'{datetime.date.today()}, torch {torch.__version__}, seeds {SEEDS}:\n')
    print('| replaced | its net, after an epoch | by | start | at the start | after one epoch |')
    print('|---|---:|---|---|---:|---:|')
    kept: dict[str, str] = {}
    for old, new in PAIRS:
        if old not in kept:
            net = trained(old)
            before = evaluate(net, tests)['top1']
            train(net, images, labels, 0)
            kept[old] = f'{before:.1f}, {evaluate(net, tests)["top1"]:.1f}'
        for start in STARTS:
            begun, ended = [], []
            for seed in SEEDS:
                net = replaced(old, new, start, seed, images)
                begun.append(evaluate(net, tests)['top1'])
                train(net, images, labels, seed)
                ended.append(evaluate(net, tests)['top1'])
            cells = [old, kept[old], new, start, f'{statistics.fmean(begun):.1f}', f'{statistics.fmean(ended):.1f}']
            print(f'| {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
