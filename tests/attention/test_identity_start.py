"""The constant factor at which every attention layer can start."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from timm_attn.attention import ATTENTION, BAM, CBAM, SE, AttentionLayer, SimAM
from timm_attn.attention.bam import BRANCHES, COMBINE, NORMS

FACTORS = dict(se=0.5, cbam=0.25, eca=0.5, gc=1.0, srm=0.5, bam=1.5, bam_mul=1.5, bamc=1.5)
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in FACTORS),
    ('se', dict(bias=True)),
    ('eca', dict(layers=2)),
    *(
        ('bam', dict(combine=combine, branches=branches, norm=norm, identity=identity))
        for combine, branches, norm, identity in itertools.product(COMBINE, BRANCHES, NORMS, (True, False))
    ),
]
# Parameters without a gradient: a softmax does not see a constant, nor does a batch norm the bias in front of it.
NO_EFFECT = {
    'gc': {'conv_mask.bias'},
    'end': {'channel.fc2.bias', 'spatial.conv3.bias'},
    'inner': {'channel.fc1.bias', 'spatial.conv0.bias', 'spatial.conv1.bias', 'spatial.conv2.bias'},
}


def factor_of(name: str, options: dict[str, Any]) -> float:
    """As in the table of the layers, by hand."""
    if name != 'bam' or not options:
        return FACTORS[name]
    two_gates = options['combine'] == 'sum_of_sigmoids' and options['branches'] == 'both'
    return (1.0 if two_gates else 0.5) + (1.0 if options['identity'] else 0.0)


def built(name: str, options: dict[str, Any]) -> Any:
    row = ATTENTION[name]
    return row.layer(64, **{**row.defaults, **options})


@pytest.mark.parametrize('name, options', OPTIONS, ids=str)
def test_the_layer_is_its_factor(name: str, options: dict[str, Any]) -> None:
    layer, x = built(name, options), torch.randn(8, 64, 6, 6)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(0, 0.5)
    factor = layer.identity_start()
    assert factor == factor_of(name, options)
    for training in (False, True):
        torch.testing.assert_close(layer.train(training)(x), factor * x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name, options', OPTIONS, ids=str)
def test_all_of_the_layer_learns(name: str, options: dict[str, Any]) -> None:
    layer = built(name, options).double().train()
    layer.identity_start()
    optimizer = torch.optim.SGD(layer.parameters(), 0.01)
    names = {key for key, _ in layer.named_parameters()}
    idle = set(names)
    for _ in range(3):
        x = torch.randn(8, 64, 6, 6, dtype=torch.float64) + torch.randn(8, 64, 1, 1)
        optimizer.zero_grad()
        (layer(x) * torch.randn_like(x)).sum().backward()
        idle -= {key for key, p in layer.named_parameters() if p.grad.abs().max() > 1e-9}
        optimizer.step()
    kind = norms_of(layer) if isinstance(layer, BAM) else name
    assert idle == names & NO_EFFECT.get(kind, set())


def norms_of(layer: BAM) -> str:
    """Where the batch norms of a BAM are."""
    first: Any = layer.spatial.bn0 if layer.channel is None else layer.channel.bn1  # type: ignore[union-attr]
    return 'end' if isinstance(first, nn.Identity) else 'inner'


def units(layer: Any) -> nn.Linear:
    found: nn.Linear = layer.fc1 if isinstance(layer, SE) else layer.channel.fc1
    return found


@pytest.mark.parametrize('make', [SE, CBAM, BAM], ids=lambda make: make.__name__)
def test_no_hidden_unit_is_off_for_the_expected_input(make: Any) -> None:
    layer, mean = make(64, reduction=4), torch.randn(64)
    before = units(layer)(mean).detach()
    assert (before < 0).any() and (before > 0).any()
    layer.identity_start(mean)
    torch.testing.assert_close(units(layer)(mean).detach(), before.abs())


def test_without_an_expected_input_the_units_stay() -> None:
    layer = SE(64)
    before = layer.fc1.weight.detach().clone()
    layer.identity_start()
    assert torch.equal(layer.fc1.weight, before)


def test_simam_and_an_eighth_attention_say_that_they_have_none() -> None:
    class Eighth(AttentionLayer):
        pass

    with pytest.raises(NotImplementedError, match='Eighth has no identity_start, so its nets have no warm start'):
        Eighth(8).identity_start()
    with pytest.raises(NotImplementedError, match='SimAM has no constant factor'):
        SimAM(8).identity_start()
