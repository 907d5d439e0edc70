#!/usr/bin/env python3
"""What a warm start is worth: every attention put into the bundled plain net, naive and by warm_start.

    python scripts/warm_start_evidence.py /usr/share/datasets/fashion-mnist

Top-1 on the 10,000 test images of Fashion-MNIST at the start and after one epoch on 1,500 training images (batches of
50, no augmentation, SGD from 0.02 down to 0), for each seed, and the mean loss of the first steps. Naive: the plain
net's weights are loaded and the attention is random. `simam, 256 images` is warm_start(..., images=...). The result
goes to results/warm_start/cifar_resnet20.json, from which `scripts/readme_tables.py` makes docs/warm_start.md. The
folder holds the four idx files, from Debian's package dataset-fashion-mnist.
"""

import argparse
import datetime
import json
import platform
import statistics
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

import timm_attn
from timm_attn import ATTENTION
from timm_attn.data.fashion_mnist import FashionMNIST
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import Loader, eval_loader

PLAIN = 'cifar_resnet20'
OUTPUT = Path(__file__).resolve().parents[1] / 'results' / 'warm_start' / f'{PLAIN}.json'
SEEDS = (0, 1, 2)
TRAINED_ON, BATCH, LR = 1500, 50, 0.02
WATCHED = 5  # steps whose loss is kept


def starts() -> dict[str, list[str]]:
    """The starts of each net; the plain net has its own alone."""
    naive_and_warm = {key: ['naive', 'warm start'] for key in ATTENTION}
    return {'plain': ['its own'], **naive_and_warm, 'simam, 256 images': ['warm start']}


def build(key: str, start: str, seed: int, images: Tensor) -> nn.Module:
    """A net with attention and the plain net's weights."""
    plain = timm.create_model(PLAIN, pretrained=True)
    if key == 'plain':
        return plain
    torch.manual_seed(seed)
    name, _, matched = key.partition(', ')
    model = timm.create_model(f'{PLAIN}_{name}', num_classes=10)
    if start == 'warm start':
        return timm_attn.warm_start(model, plain, images=images if matched else None)
    model.load_state_dict(plain.state_dict(), strict=False)
    return model


def train(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> list[float]:
    """One epoch; the losses of all steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    batches, losses = order.split(BATCH), []
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=len(batches))
    for chosen in batches:
        loss = F.cross_entropy(model.train()(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return losses


def measure(key: str, start: str, images: Tensor, labels: Tensor, tests: Loader) -> dict[str, Any]:
    """The row of a net and a start over the seeds."""
    before, after, losses = [], [], []
    for seed in SEEDS:
        model = build(key, start, seed, images[:256])
        before.append(evaluate(model, tests)['top1'])
        losses.append(train(model, images, labels, seed)[:WATCHED])
        after.append(evaluate(model, tests)['top1'])
    mean = [statistics.fmean(step) for step in zip(*losses, strict=True)]
    return dict(net=key, start=start, before=before, after=after, first_losses=[round(loss, 4) for loss in mean])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--net', help='measures this one alone, such as simam, and keeps the other rows')
    args = parser.parse_args()
    data = args.data
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore', message='.*SimAM')
    config = resolve_model_data_config(timm.create_model(PLAIN))
    images, labels = next(iter(eval_loader(FashionMNIST('train', data), config, batch_size=TRAINED_ON)))
    tests = eval_loader(FashionMNIST('validation', data), config)
    rows = [row for row in json.loads(OUTPUT.read_text())['rows'] if row['net'] != args.net] if args.net else []
    for key, of_net in starts().items():
        for start in of_net if args.net in (None, key) else ():
            rows.append(measure(key, start, images, labels, tests))
            print(json.dumps(rows[-1]), flush=True)
    about = dict(
        command='python scripts/warm_start_evidence.py /usr/share/datasets/fashion-mnist',
        date=datetime.date.today().isoformat(),
        hardware=f'1 core of an {platform.machine()} CPU',
        torch=torch.__version__,
        seeds=SEEDS,
    )
    rows.sort(key=lambda row: list(starts()).index(row['net']))
    OUTPUT.write_text(json.dumps({**about, 'rows': rows}, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
