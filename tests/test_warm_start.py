"""Nets with attention begin as their plain net: exactly, or not at all."""

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import warm_start_pairs
from torch import Tensor, nn

import timm_attn
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


def plain_net(**kwargs: Any) -> nn.Module:
    """A trained net."""
    net: nn.Module = timm.create_model('cifar_resnet20', pretrained=True, **kwargs)
    return net


def real_images(count: int, split: str = 'train') -> Tensor:
    data = FashionMNIST(split)
    pixels = torch.stack([torch.tensor(data.images[i]) for i in range(count)])
    return ((pixels / 255 - 0.286) / 0.353)[:, None].expand(-1, 3, -1, -1).contiguous()


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = net.eval()(x)
    return found


def state_of(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def is_unchanged(net: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


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


SIMAM = {'cifar_resnet20': 0.11, 'cifar_preresnet20': 0.11}  # twice what was measured


@pytest.mark.parametrize('stem', SIMAM)
def test_simam_with_images_is_near_the_plain_net(stem: str) -> None:
    naive, _, matched = warm_start_pairs.measure_simam(f'{stem}_simam')
    assert matched < SIMAM[stem] and matched < naive / 4


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


def half_is_nan(plain: nn.Module) -> dict[str, Tensor]:
    state = state_of(plain)
    state['layer2.0.conv1.weight'][0] = float('nan')
    return state


def trained(name: str) -> nn.Module:
    """A net with attention after one step in training mode."""
    model = timm.create_model(name)
    with torch.no_grad():
        model.train()(real_images(4))
    return model


BAD: dict[str, tuple[Callable[[], Any], Callable[[], Any], dict[str, Any], str]] = {
    'another backbone': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: timm.create_model('cifar_resnet56').state_dict(),
        {},
        r'not those of the plain CifarResNet: they lack no key and have layer1.3.bn1.bias, .* more besides',
    ),
    'another input': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: timm.create_model('cifar_resnet20', in_chans=1).state_dict(),
        {},
        r"another net's: conv1.weight is \(16, 1, 3, 3\), but must be \(16, 3, 3, 3\)",
    ),
    'another layout': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: {'state_dict': plain_net().state_dict()},
        {},
        'have state_dict besides; timm_attn.convert_state_dict reads other layouts',
    ),
    'the same weights and another net': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: other_strides(plain_net()),
        {},
        'has the weights of this net, but other outputs',
    ),
    'no state dict': (lambda: timm.create_model('cifar_resnet20_se'), lambda: 'cifar_resnet20', {}, 'but is str'),
    'not finite': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: half_is_nan(plain_net()),
        {},
        'The weights are not finite: layer2.0.conv1.weight',
    ),
    'no attention': (plain_net, plain_net, {}, 'CifarResNet has no attention layers'),
    'trained attention': (lambda: trained('cifar_resnet20_bam'), plain_net, {}, r'layer1.3.channel.bn2.* is above 0'),
    'trained net': (lambda: trained('cifar_resnet20_se'), plain_net, {}, r'bn1.num_batches_tracked is above 0'),
    'loaded weights': (
        lambda: timm.create_model('cifar_resnet20_se', pretrained=True), plain_net, {}, 'The model was trained',
    ),
    'meta device': (
        lambda: timm.create_model('cifar_resnet20_se', device='meta'), plain_net, {}, 'meta device and has no values',
    ),
    'scripted': (lambda: torch.jit.script(timm.create_model('cifar_resnet20_se')), plain_net, {}, 'is scripted or'),
    'compiled': (lambda: torch.compile(timm.create_model('cifar_resnet20_se')), plain_net, {}, 'scripted or compiled'),
    'fused': (lambda: timm_attn.fuse(timm.create_model('cifar_resnet20_se').eval()), plain_net, {}, 'not those of'),
    'beyond float16': (
        lambda: timm.create_model('cifar_resnet20_se').half(), lambda: huge(plain_net()), {}, 'beyond the range of',
    ),
    'too few images': (
        lambda: timm.create_model('cifar_resnet20_simam'),
        plain_net,
        dict(images=real_images(8)),
        'images must be at least 16, for statistics of their maps, but are 8',
    ),
    'images of other channels': (
        lambda: timm.create_model('cifar_resnet20_simam'),
        plain_net,
        dict(images=real_images(32)[:, :1]),
        r'images must have 3 channels, as the net takes them, but are float32 \(32, 1, 28, 28\)',
    ),
    'images of several sizes': (
        lambda: timm.create_model('cifar_resnet20_simam'),
        plain_net,
        dict(images=[real_images(16), torch.zeros(16, 3, 32, 32)]),
        r'of one size, but one is float32 \(16, 3, 32, 32\)',
    ),
    'images that are bytes': (
        lambda: timm.create_model('cifar_resnet20_simam'),
        plain_net,
        dict(images=torch.zeros(32, 3, 28, 28, dtype=torch.uint8)),
        'images must be float batches',
    ),
}  # fmt: skip


def other_strides(net: Any) -> nn.Module:
    net.layer2[0].conv1.stride = (1, 1)
    net.layer2[0].downsample[0].stride = (1, 1)
    plain: nn.Module = net
    return plain


def huge(net: nn.Module) -> dict[str, Tensor]:
    state = state_of(net)
    state['layer1.0.bn2.weight'].fill_(5e4)
    return state


@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize('what', BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(what: str) -> None:
    make, give, arguments, message = BAD[what]
    model = make()
    before = state_of(model) if what not in ('meta device',) else {}
    with pytest.raises(ValueError, match=message) as caught:
        timm_attn.warm_start(model, give(), **arguments)
    assert str(caught.value).endswith('.') and '\n' not in str(caught.value)
    assert not before or is_unchanged(model, before)


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
