#!/usr/bin/env python3
"""fuse equals the net: on every name of the zoo, on families of timm, and on those with attention attached.

    python scripts/fuse_all.py

Nets have random norms that know their statistics, and compute in float64 on small images.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.timm_extra import build, images  # noqa: E402
from timm_attn import fuse, zoo  # noqa: E402

MOST = 1e-9  # of the norm of the logits
FAMILIES = (
    'convnext_atto', 'cspresnet50', 'darknet17', 'densenet121', 'dla34', 'dpn68', 'efficientnet_b0', 'ese_vovnet19b_dw',
    'fbnetc_100', 'ghostnet_100', 'hardcorenas_a', 'hrnet_w18_small', 'legacy_seresnet18', 'mixnet_s',
    'mnasnet_100', 'mobilenetv2_100', 'mobilenetv3_small_100', 'regnetx_002', 'regnety_002', 'repvgg_a0', 'resnest14d',
    'res2net50_14w_8s', 'resnet18', 'rexnet_100', 'selecsls42b', 'vgg11_bn', 'xception41', 'skresnet18',
)  # fmt: skip
ATTACHED = ('efficientnet_b0', 'mobilenetv3_small_100', 'regnetx_002', 'convnext_atto', 'densenet121', 'vgg11_bn')


def nets() -> Iterator[tuple[str, Any]]:
    """Each name and its net."""
    for name in (*zoo.names(), *FAMILIES):
        yield name, build(name)
    for name in ATTACHED:
        for attention, at in (('eca', 'stages'), ('simam', 'stages'), ('cbam', 'stages')):
            yield f'{name} with {attention}', build('with_attention', backbone=name, attention=attention, at=at)


def main() -> None:
    torch.manual_seed(0)
    worst: list[tuple[float, str]] = []
    for name, net in nets():
        net = net.double()
        x = images(net).double()
        with torch.no_grad():
            expected, actual = net(x), fuse(net)(x)
        found = ((actual - expected).norm() / expected.norm()).item()
        worst.append((found, name))
        print(f'{name}: {found:.1e}', flush=True)
        if not found <= MOST:
            sys.exit(f'{name}: the fused net differs by {found:.1e} of the logits, more than {MOST:g}.')
    print(f'{len(worst)} nets; the largest difference is {max(worst)[0]:.1e} of the logits, of {max(worst)[1]}')


if __name__ == '__main__':
    main()
