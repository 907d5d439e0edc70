"""The scales of maps: exact or refused, never wrong."""

import copy
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.random_nets import RandomNet
from timm_attn.attach import attention_layers
from timm_attn.attach.folds import Fold, fold
from timm_attn.attach.scales import PINNED, CannotFold, Scales
from timm_attn.attention import BAM, ECA, SE, AttentionLayer


def start(layer: AttentionLayer, path: str, mean: Tensor | None) -> float:
    return layer.identity_start(mean)


def without_attention(net: nn.Module) -> nn.Module:
    plain = copy.deepcopy(net)
    for layer in attention_layers(plain).values():
        layer.forward = torch.clone  # type: ignore[method-assign]
    return plain


def folded(net: nn.Module, example: Tensor) -> tuple[list[Fold], float]:
    """Folds a net in evaluation; what was scaled, and the deviation of the outputs."""
    plain = without_attention(net.eval())
    with torch.no_grad():
        folds = fold(net, start, example)
        x = torch.randn_like(example)
        expected, found = plain(x), net(x)
    return folds, float((expected - found).abs().max() / expected.abs().max())


@pytest.mark.parametrize('seeds', [range(i, i + 25) for i in range(0, 100, 25)], ids=str)
def test_nets_at_random_are_folded_exactly_or_refused(seeds: range) -> None:
    done = 0
    for seed in seeds:
        torch.manual_seed(seed)
        net = RandomNet(seed).eval()
        try:
            folds, deviation = folded(net, torch.randn(2, 3, 6, 6, dtype=torch.float64))
        except CannotFold:
            continue
        done += 1
        up_to_eps = any(f.rescales_a_norm and 'norm' in f.path for f in folds)  # group norms
        assert deviation < (1e-3 if up_to_eps else 1e-9), seed
    assert done >= 8  # most steps are pinned on purpose
