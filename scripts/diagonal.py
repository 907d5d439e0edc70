"""Print the sample of the zoo that CI runs timm's tests on: one name of every family of backbones, attentions in turn.

A family is the rows of BACKBONES that the same code builds: the same builder and block with the same options, the same
types of modules, grouped convolutions or none. Its rows differ in depth and width; the first stands for all of them.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import nn

from timm_attn import ATTENTION, BACKBONES, zoo
from timm_attn.attach.blocks import SLOTTED
from timm_attn.backbones import Backbone


def words(build: Callable[..., Any]) -> set[str]:
    """The names of the functions, classes and options that a builder is put together from."""
    if not isinstance(build, partial):
        return {build.__qualname__}
    inner = [words(value) for value in build.keywords.values() if callable(value)]
    return words(build.func).union(build.keywords, *inner)


def modules(backbone: Backbone) -> list[nn.Module]:
    """The modules of the plain net, without memory for weights."""
    with torch.device('meta'):
        return list(backbone.build().modules())


def family(backbone: Backbone) -> Hashable:
    """The same for two rows exactly if one code builds both."""
    found = modules(backbone)
    grouped = any(isinstance(m, nn.Conv2d) and 1 < m.groups < m.in_channels for m in found)
    return frozenset(words(backbone.build)), frozenset(map(type, found)), grouped


def diagonal() -> list[str]:
    """The first backbone of every family once, every attention and every kind of block at least once."""
    first: dict[Hashable, str] = {}
    for name, backbone in BACKBONES.items():
        first.setdefault(family(backbone), name)
    sample = []
    for i, stem in enumerate(first.values()):
        offered = [name for key in ATTENTION if (name := f'{stem}_{key}') in zoo.names()]
        sample.append(offered[i % len(offered)])
    missing = [key for key in ATTENTION if not any(name.endswith(f'_{key}') for name in sample)]
    assert not missing, f'no name of the sample has {missing}'
    seen = {type(module) for stem in first.values() for module in modules(BACKBONES[stem])}
    assert seen >= set(SLOTTED), f'no net of the sample has {set(SLOTTED) - seen}'
    return sample


if __name__ == '__main__':
    print(*diagonal(), sep='\n')
