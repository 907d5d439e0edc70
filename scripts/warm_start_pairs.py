"""Warm starts of every attention in every backbone: how far the outputs are from the plain net's.

    python scripts/warm_start_pairs.py [NAME ...]

Random weights, norms as after training. One line per name: the largest difference of the outputs relative to the
largest output, in evaluation and in training in float64, in evaluation in float32, and the seconds of the warm start.
For SimAM, whose start is approximate, the root mean square of the difference instead, in evaluation: with random gates
of the naive start, of the start without images, and of the start with images.
"""

import copy
import sys
import time
import warnings
from dataclasses import astuple, dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

import timm_attn
from timm_attn.attention import ATTENTION
from timm_attn.backbones import BACKBONES

# With images: the root mean square of the difference at most, twice what was measured on 2026-11-30
SIMAM_BOUNDS = {
    'cifar_resnet20': 0.11, 'cifar_resnet56': 0.16, 'cifar_resnet110': 0.11, 'cifar_preresnet20': 0.11,
    'cifar_preresnet56': 0.23, 'cifar_preresnet110': 0.22, 'cifar_preresnet164': 0.26, 'cifar_resnext29_8x64d': 0.012,
    'cifar_mobilenetv2': 0.002, 'cifar_resnet50': 0.1, 'resnet18': 0.1, 'resnet50': 0.08,
    'resnext50_32x4d': 0.004, 'mobilenetv2': 0.51,
}  # fmt: skip


@dataclass(frozen=True)
class Deviations:
    """Of a warm start, relative to the outputs' size."""

    evaluation: float
    training: float
    float32: float
    seconds: float


def pairs() -> list[str]:
    """The names of all nets with attention."""
    return [
        f'{stem}_{key}'
        for stem, backbone in BACKBONES.items()
        for key, row in ATTENTION.items()
        if row.site in backbone.sites
    ]


def stem_of(name: str) -> str:
    """The backbone of a name."""
    return max((stem for stem in BACKBONES if name.startswith(f'{stem}_')), key=len)


def plain_net(stem: str) -> nn.Module:
    """A backbone's plain net in float64, its norms as after training."""
    torch.manual_seed(0)
    net = timm.create_model(BACKBONES[stem].timm or stem, num_classes=10).double()
    return with_trained_norms(net)


@torch.no_grad()
def with_trained_norms(net: nn.Module) -> nn.Module:
    """Draws the weights and statistics of a net's batch norms."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return net


def image_batch(stem: str, count: int = 2) -> Tensor:
    """Small images of noise, with more than one position in the last map."""
    side = 16 if stem.startswith('cifar') else 64
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def outputs(net: nn.Module, images: Tensor, training: bool = False) -> Tensor:
    """A net's outputs; what is drawn is the same for every net."""
    net.train(training)
    torch.manual_seed(1)
    found: Tensor = net(images)
    return found.double()


def measure(name: str) -> Deviations:
    """The deviations of an exact warm start."""
    plain, images = plain_net(stem_of(name)), image_batch(stem_of(name))
    model: Any = timm.create_model(name, num_classes=10).double()
    start = time.perf_counter()
    timm_attn.warm_start(model, plain)
    seconds = time.perf_counter() - start
    evaluation = deviation(outputs(plain, images), outputs(model, images))
    in32 = deviation(*(outputs(copy.deepcopy(net).float(), images.float()) for net in (plain, model)))
    training = deviation(outputs(plain, images, training=True), outputs(model, images, training=True))
    return Deviations(evaluation, training, in32, seconds)


def measure_simam(name: str) -> tuple[float, float, float]:
    """The root mean squares of the naive start, of the one without images and of the one with images."""
    plain, images = plain_net(stem_of(name)), image_batch(stem_of(name), 64)
    seen, unseen = images[:32], images[32:]
    expected, found = outputs(plain, unseen), []
    for how in ('naive', None, seen):
        model = timm.create_model(name, num_classes=10).double()
        if how == 'naive':
            model.load_state_dict(plain.state_dict())
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', 'The gate of SimAM')
                timm_attn.warm_start(model, plain, images=how)
        difference = outputs(model, unseen) - expected
        found.append(float(difference.square().mean().sqrt() / expected.square().mean().sqrt()))
    naive, analytic, matched = found
    return naive, analytic, matched


def deviation(expected: Tensor, found: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def main(names: list[str]) -> None:
    for name in names or pairs():
        if name.endswith('_simam'):
            print(f'{name:32}', 'rms', *(f'{value:8.3f}' for value in measure_simam(name)), flush=True)
        else:
            print(f'{name:32}', *(f'{value:8.1e}' for value in astuple(measure(name))), flush=True)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(sys.argv[1:])
