"""SimAM starts near the plain net: how near."""

import warnings

import pytest
import timm
import torch
import warm_start_pairs

import timm_attn
from tests.support.trained import outputs, plain_net, real_images


@pytest.mark.parametrize('stem', ['cifar_resnet20', 'cifar_resnet56', 'cifar_preresnet20', 'cifar_preresnet56'])
def test_with_images_it_is_near_the_plain_net(stem: str) -> None:
    naive, _, matched = warm_start_pairs.measure_simam(f'{stem}_simam')
    assert matched < warm_start_pairs.SIMAM_BOUNDS[stem] and matched < naive / 4


def test_simam_of_a_trained_net() -> None:
    """Twice what was measured: .149 without images, .116 with them; naive .55."""
    plain, test = plain_net(), real_images(200, 'validation')
    expected, found = outputs(plain, test), {}
    loader = [(real_images(96)[i : i + 32], None) for i in range(0, 96, 32)]
    for how, images in (('analytic', None), ('tensor', real_images(96)), ('loader', loader)):
        model = timm.create_model('cifar_resnet20_simam')
        with pytest.warns(UserWarning, match='The gate of SimAM depends on the data: the start is approximate'):
            timm_attn.warm_start(model, plain, images=images)
        found[how] = outputs(model, test)
        difference = (found[how] - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert difference < (0.3 if images is None else 0.23)
    assert torch.equal(found['tensor'], found['loader'])


def test_simam_without_a_norm_behind_it_scales_the_convolution() -> None:
    plain = warm_start_pairs.plain_net('cifar_preresnet20')
    model = timm.create_model('cifar_preresnet20_simam').double()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        timm_attn.warm_start(model, plain)
    for key, value in plain.state_dict().items():
        scale = 1 / 0.7 if key.endswith('conv2.weight') else 1
        torch.testing.assert_close(model.state_dict()[key], value * scale, rtol=1e-3, atol=1e-9)
