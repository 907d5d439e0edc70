"""start='identity': the net computes what it did, or is refused and as before."""

from typing import Any

import pytest
import timm
import torch

import timm_attn
from tests.support.timm_extra import build, images
from timm_attn.attach import attention_layers, placements

# name, attention, at -> the factor, and how much a LayerNorm's eps may change
CASES: dict[tuple[str, str, str | None], tuple[float, float]] = {
    ('dla46x_c', 'srm', None): (0.5, 1e-5),
    ('regnetx_002', 'cbam', None): (0.25, 1e-5),
    ('resnetv2_18', 'se', 'stages'): (0.5, 1e-5),
    ('starnet_s050', 'eca', None): (0.5, 1e-5),
    ('test_convnext', 'bam', 'stages'): (1.5, 3e-4),
    ('test_mambaout', 'gc', None): (1.0, 3e-4),
}


def outputs(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(x)
    return found


@pytest.mark.parametrize('name, attention, at', CASES)
def test_the_outputs_stay(name: str, attention: str, at: str | None) -> None:
    factor, most = CASES[name, attention, at]
    model = build(name)
    x = images(model)
    expected = outputs(model, x)
    training = build(name).train().training
    timm_attn.attach(model.train(training), attention, at=at, start='identity')
    assert all(m.training for m in model.modules())
    rows = [row for row in placements(model) if row.channels]
    assert {row.factor for row in rows} == {factor} and len(rows) == len(attention_layers(model)) > 0
    scaled = {row.path: row.note for row in placements(model) if row.how == 'scaled'}
    assert bool(scaled) == (factor != 1) and all(model.get_submodule(path) is not None for path in scaled)
    assert all(note.startswith('input scaled by ') for note in scaled.values())
    found = outputs(model.eval(), x)
    assert (found - expected).abs().max() <= most * expected.abs().max()


def test_the_features_of_a_stage_are_the_factor_times_the_plain_nets() -> None:
    model = build('resnet10t')
    x = images(model)
    plain = model.forward_intermediates(x, intermediates_only=True)
    timm_attn.attach(model, 'bam', at=['layer1', 'layer2'], start='identity')
    factors = {row.path.partition('.')[0]: row.factor for row in placements(model) if row.channels}
    assert factors == {'layer1': 1.5, 'layer2': 1.5}
    for i, (one, other) in enumerate(zip(plain, model.forward_intermediates(x, intermediates_only=True), strict=True)):
        torch.testing.assert_close(other, (1.5 if i in (1, 2) else 1.0) * one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('attention', ['eca', 'bam'])
def test_a_net_that_fixes_a_factor_is_refused_and_as_before(attention: str) -> None:
    """Its activations are no positive multiples, and its shortcut has no weights."""
    model = timm.create_model('nf_resnet26', depths=(1, 1, 1, 1), act_layer='silu').eval()
    x = torch.randn(1, 3, 64, 64)
    before, keys, modules = outputs(model, x), {k: v.clone() for k, v in model.state_dict().items()}, repr(model)
    with pytest.raises(ValueError, match='cannot start as its plain net'):
        timm_attn.attach(model, attention, at='stages', start='identity')
    assert repr(model) == modules and placements(model) == []
    assert model.state_dict().keys() == keys.keys()
    assert all(torch.equal(value, keys[key]) for key, value in model.state_dict().items())
    assert torch.equal(outputs(model, x), before)


def test_simam_is_said_to_be_approximate() -> None:
    with pytest.warns(UserWarning, match='the start is approximate'):
        model = timm_attn.attach(timm.create_model('test_resnet').eval(), 'simam', start='identity')
    assert {row.factor for row in placements(model) if row.channels} == {None}


@torch.inference_mode()
def test_a_start_under_inference_mode_can_be_trained() -> None:
    model = build('resnet10t')
    with torch.inference_mode(False):
        plain = build('resnet10t')
    timm_attn.attach(plain, 'eca', start='identity')
    assert not any(parameter.is_inference() for parameter in plain.parameters())
    with pytest.raises(ValueError, match='made under torch.inference_mode'):
        timm_attn.attach(model, 'eca', start='identity')
    assert len(attention_layers(timm_attn.attach(model, 'eca', at='stages'))) == 4


@pytest.mark.parametrize('example', [torch.full((1, 3, 64, 64), float('nan')), torch.zeros(0, 3, 64, 64)])
def test_examples_that_no_start_can_be_checked_on(example: torch.Tensor) -> None:
    model = build('resnet10t')
    with pytest.raises(ValueError, match='ResNet has no outputs, or none that are finite, on the example'):
        timm_attn.attach(model, 'eca', start='identity', example=example)
    with pytest.raises(ValueError, match='is on the meta device and has no values'), torch.device('meta'):
        timm_attn.attach(timm.create_model('resnet10t').eval(), 'eca', start='identity')


@pytest.mark.parametrize('replace', [False, True])
def test_a_net_of_several_outputs(replace: bool) -> None:
    """Features of timm's feature extractor are a list."""
    torch.manual_seed(0)
    model = timm.create_model('seresnet18' if replace else 'resnet10t', features_only=True, out_indices=(1, 2)).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = [features.detach() for features in model(x)]
    timm_attn.attach(model, 'eca', start='identity', replace=replace, example=x)
    for ours, theirs in zip(model(x), expected, strict=True):
        assert (ours - theirs).abs().max() <= (0.5 if replace else 1e-4) * theirs.abs().max()


@pytest.mark.parametrize('attention', ['bam', 'simam'])
def test_attention_that_was_there_before_stays(attention: str) -> None:
    """It is a part of the net that starts, trained or not."""
    model = timm_attn.attach(build('resnet10t'), 'se', start='identity')
    for name, parameter in model.named_parameters():
        if '.se.' in name:
            torch.nn.init.normal_(parameter, std=0.3)
    x = images(model)
    expected, before = outputs(model, x), {key: value.clone() for key, value in model.state_dict().items()}
    if attention == 'simam':
        with pytest.warns(UserWarning, match='The gate of SimAM depends on the data'):
            timm_attn.attach(model, attention, start='identity')
    else:
        timm_attn.attach(model, attention, at='stages', start='identity')
        assert (outputs(model, x) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before if '.se.fc1' in key)
    assert all(model.state_dict()[key].any() for key in before if '.se.fc2.weight' in key)
