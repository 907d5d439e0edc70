"""attach on nets that timm built."""

import pytest
import timm
import torch
from torch import nn

import timm_attn
from timm_attn.attach import attention_layers


def test_a_pretrained_looking_net_keeps_its_weights() -> None:
    net = timm.create_model('resnet26d').double()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    same = timm_attn.attach(net, 'srm')
    assert same is net
    layers = attention_layers(net)
    assert len(layers) == 8 and all(layer.cfc.dtype == torch.float64 for layer in layers.values())
    after = net.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert net.eval()(torch.randn(1, 3, 64, 64, dtype=torch.float64)).shape == (1, 1000)


def test_the_simam_of_an_attached_net_is_that_of_the_zoo() -> None:
    ours = timm.create_model('resnet18_simam', zero_init_last=False).eval()
    net = timm.create_model('resnet18').eval()
    net.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(net(x), ours(x))
    timm_attn.attach(net, 'simam', attn_kwargs=dict(e_lambda=0.1))
    torch.testing.assert_close(net(x), ours(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    'build, attention, kwargs, message',
    [
        (lambda: timm.create_model('resnet18'), 'sam', {}, "Unknown attention 'sam': choose from se, cbam, eca"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 3)),
            'se',
            {},
            'Sequential has no stages that timm names',
        ),
        (lambda: timm.create_model('vgg11'), 'simam', {}, "none of its blocks is in the table of places. at='stages'"),
        (
            lambda: timm.create_model('seresnet18'),
            'se',
            {},
            "slot 'se' of BasicBlock already holds SEModule",
        ),
        (lambda: timm.create_model('resnet18'), 'bam', {}, "name its stages, at='stages' for all"),
        (lambda: timm.create_model('resnet18'), 'bam', {'stages': ('fc',)}, "'fc' must be .* but is Linear"),
        (
            lambda: timm.create_model('resnet18'),
            'bam',
            {'stages': ('layer9',)},
            "ResNet has no stage 'layer9': choose from",
        ),
        (lambda: timm.create_model('resnet18_bam'), 'bam', {'stages': 'layer1'}, "'layer1' already ends with BAM"),
        (lambda: nn.Sequential(nn.Sequential(nn.ReLU())), 'bam', {'stages': '0'}, 'must have a convolution'),
        (lambda: nn.Sequential(nn.Sequential()), 'bam', {'stages': '0'}, 'must have a convolution'),
    ],
)
def test_bad_input(build, attention, kwargs, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        timm_attn.attach(build(), attention, **kwargs)


def test_two_attentions_in_one_net() -> None:
    net = timm_attn.attach(timm.create_model('resnet18_gc'), 'bam', stages=('layer2', 'layer2'))
    assert len(net.layer2) == 3
    assert net.layer2[-1].channels == 128
    assert net.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_a_net_that_cannot_be_filled_is_left_alone() -> None:
    net = timm.create_model('resnet18')
    before = repr(net)
    with pytest.raises(ValueError, match='reduction must be a positive integer'):
        timm_attn.attach(net, 'se', attn_kwargs=dict(reduction=0))
    with pytest.raises(ValueError, match="'fc' must be"):
        timm_attn.attach(net, 'bam', stages=('layer1', 'fc'))
    assert repr(net) == before


def test_a_net_with_a_module_in_two_places_keeps_its_weights() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)), block, nn.ReLU(), block).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    timm_attn.attach(net, 'se', at='0')
    for key, value in before.items():
        torch.testing.assert_close(net.state_dict()[key], value, rtol=0, atol=0)
