"""Nets with attention begin as their plain net: exactly, or not at all."""

import copy
import logging
from typing import Any

import pytest
import timm
import torch
import warm_start_pairs
from torch import Tensor, nn

import timm_attn
from tests.support.trained import is_unchanged, outputs, plain_net, real_images, state_of
from timm_attn.attach import attention_layers
from timm_attn.attention import ATTENTION
from timm_attn.data.fashion_mnist import FashionMNIST

EXACT = [name for name in ATTENTION if name != 'simam']
# Every kind of block with an attention; the wider and deeper nets of the same blocks are those of the script.
SAMPLE = [
    'resnet18_cbam', 'mobilenetv2_srm', 'cifar_resnet56_bam', 'cifar_resnet110_se', 'cifar_preresnet20_bam_mul',
    'cifar_preresnet56_eca', 'cifar_preresnet110_gc', 'cifar_mobilenetv2_bamc', 'cifar_densenet100_12_bam_mul',
    'squeezenet1_1_bam', 'cifar_resnet50_bam',
]  # fmt: skip
# Here a batch norm takes the scaled map, and its eps does not scale with it.
UP_TO_EPS = ('cifar_preresnet20_bam_mul', 'cifar_densenet100_12_bam_mul')


@pytest.mark.parametrize('name', SAMPLE)
def test_the_outputs_are_those_of_the_plain_net(name: str) -> None:
    """All nets: scripts/warm_start_pairs.py."""
    found = warm_start_pairs.measure(name)
    assert found.evaluation < 1e-9 and found.float32 < 1e-4
    assert found.training < (1e-5 if name in UP_TO_EPS else 1e-9)


@pytest.mark.parametrize('name', EXACT)
@pytest.mark.parametrize('dtype, limit', [(torch.float32, 1e-6), (torch.bfloat16, 0.03)], ids=str)
def test_every_attention_starts_as_the_trained_net(name: str, dtype: torch.dtype, limit: float) -> None:
    plain, x = plain_net().to(dtype), real_images(32).to(dtype)
    model = timm.create_model(f'cifar_resnet20_{name}').to(dtype).train()
    frozen = [p for p in model.parameters()][0].requires_grad_(False)
    assert timm_attn.warm_start(model, plain.state_dict()) is model
    assert model.training and not frozen.requires_grad and next(model.parameters()).dtype == dtype
    expected = outputs(plain, x)
    assert warm_start_pairs.deviation(expected, outputs(model, x)) < limit


@pytest.mark.parametrize('name', EXACT)
def test_all_of_the_attention_learns(name: str) -> None:
    model = timm_attn.warm_start(timm.create_model(f'cifar_resnet20_{name}'), plain_net()).train()
    parameters = {
        f'{path}.{key}': p for path, layer in attention_layers(model).items() for key, p in layer.named_parameters()
    }
    # a softmax does not see a constant; a batch norm leaves rounding errors of the biases in front of it
    idle = {key for key in parameters if not key.endswith('conv_mask.bias')}
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    for i in range(3):
        optimizer.zero_grad()
        images, labels = real_images(96)[32 * i : 32 * i + 32], torch.tensor(FashionMNIST('train').labels[:96]).long()
        nn.functional.cross_entropy(model(images), labels[32 * i : 32 * i + 32]).backward()
        idle -= {key for key, p in parameters.items() if p.grad is not None and bool(p.grad.any())}
        optimizer.step()
    assert idle == set()


def test_a_net_of_attach_and_another_input() -> None:
    plain = warm_start_pairs.with_trained_norms(timm.create_model('resnet26d', in_chans=1, num_classes=7).double())
    model = timm.create_model('resnet26d', in_chans=1, num_classes=7).double()
    timm_attn.attach(timm_attn.attach(model, 'srm'), 'bam', stages=('layer1', 'layer3'))
    timm_attn.warm_start(model, plain)
    x = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    assert warm_start_pairs.deviation(outputs(plain, x), outputs(model, x)) < 1e-12


def test_a_classifier_of_its_own() -> None:
    plain, model = plain_net(), timm.create_model('cifar_resnet20_se', num_classes=3)
    own = state_of(model.fc)
    state = plain.state_dict()
    with pytest.raises(ValueError, match=r'has 10 classes, and the model 3: leave fc.bias, fc.weight out'):
        timm_attn.warm_start(model, state)
    timm_attn.warm_start(model, {key: value for key, value in state.items() if not key.startswith('fc.')})
    assert is_unchanged(model.fc, own)
    x = real_images(8)
    torch.testing.assert_close(model.eval().forward_features(x), plain.eval().forward_features(x))


def test_what_was_scaled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, 'timm_attn.warm_start'):
        timm_attn.warm_start(timm.create_model('cifar_resnet20_eca'), plain_net())
    assert len(caplog.messages) == 9
    assert caplog.messages[0] == 'layer1.0.bn2: input scaled by 1, output by 2'


def test_far_scales_are_warned_of() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    gates = [ATTENTION['cbam'].layer(8) for _ in range(6)]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Sequential(*gates), nn.Conv2d(8, 4, 1))
    keys = {'0': '0', '2': '3'}
    state = {f'{keys[key[0]]}{key[1:]}': value for key, value in plain.state_dict().items()}
    with pytest.warns(UserWarning, match=r'costs accuracy in half precision: 3 \(1/\d+\)'):
        timm_attn.warm_start(model, state)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(outputs(model, x), outputs(plain, x))


def test_the_hidden_units_of_se_are_on_for_the_expected_map() -> None:
    model: Any = timm_attn.warm_start(timm.create_model('cifar_resnet20_se'), plain_net())
    seen: dict[str, Tensor] = {}
    layers = attention_layers(model)
    for path, layer in layers.items():
        layer.fc1.register_forward_hook(lambda m, a, out, path=path: seen.update({path: out}))  # type: ignore
    outputs(model, real_images(64))
    assert len(seen) == 9 and all((hidden > 0).any() for hidden in seen.values())


def test_a_net_that_cannot_start_is_left_alone() -> None:
    model = timm_attn.attach(timm.create_model('resnet18', act_layer='silu'), 'bam', stages=('layer1',))
    model.layer1.append(nn.SiLU())
    plain = timm.create_model('resnet18', act_layer='silu')
    plain.layer1.append(nn.SiLU())
    state = {key.replace('layer1.2', 'layer1.3'): value for key, value in plain.state_dict().items()}
    before = state_of(model)
    with pytest.raises(ValueError, match=r'ResNet with attention cannot start as its plain net: .* needs the factor'):
        timm_attn.warm_start(model, state)
    assert is_unchanged(model, before)


def test_a_branch_of_training_alone_is_caught() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)
            self.se = ATTENTION['se'].layer(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.conv(x))
            y = self.head(self.se(x))
            return y + x.tanh().mean() if self.training else y

    model = Branches()
    plain = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith('se.')}
    before = state_of(model)
    with pytest.raises(ValueError, match='its outputs in training would differ by'):
        timm_attn.warm_start(model, plain)
    assert is_unchanged(model, before) and copy.deepcopy(model).training


NESTED = ['stages.[01]', 'stages.1.blocks.?', 'stages.1.blocks.0.conv_dw']


@pytest.mark.parametrize('at', ['stages', NESTED], ids=['stages', 'nested'])
@pytest.mark.parametrize('by', ['net', 'state dict', 'own keys'])
def test_the_keys_of_wrapped_modules(at: Any, by: str) -> None:
    """`module.` is in those of the net with attention, and not in the plain net's."""
    plain = warm_start_pairs.with_trained_norms(timm.create_model('regnetx_002' if at == 'stages' else 'test_convnext'))
    model = timm_attn.attach(copy.deepcopy(plain), 'eca', at=at)
    assert any('.module.' in key for key in model.state_dict())
    inside = tuple(f'{path}.' for path in attention_layers(model))
    weights = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith(inside)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    timm_attn.warm_start(model, {'net': plain, 'state dict': plain.state_dict(), 'own keys': weights}[by])
    x = torch.randn(2, 3, 64, 64)
    assert warm_start_pairs.deviation(outputs(plain, x), outputs(model, x)) < 3e-4


class OwnSize(nn.Module):
    """Takes images of one size only, and has no convolution of them."""

    in_chans = 3
    pretrained_cfg = dict(input_size=(3, 72, 72))

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.se, self.head = nn.BatchNorm2d(12), ATTENTION['se'].layer(12), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == (72, 72)
        y: Tensor = self.head(self.se(self.norm(nn.functional.pixel_unshuffle(x, 2))))
        return y.mean((2, 3))


def test_a_net_that_takes_one_size_alone() -> None:
    model = OwnSize()
    plain = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith('se.')}
    timm_attn.warm_start(model, plain)
    torch.testing.assert_close(model.norm.weight, 2 * plain['norm.weight'])
