"""What warm_start refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn

import timm_attn
from tests.support.trained import is_unchanged, plain_net, real_images, state_of


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
    'integers': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: {key: value.int() for key, value in plain_net().state_dict().items()},
        {},
        r'no floating-point numbers: conv1.weight is int32 \(16, 3, 3, 3\)',
    ),
    'complex numbers': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: {key: value.to(torch.complex64) for key, value in plain_net().state_dict().items()},
        {},
        'no floating-point numbers: conv1.weight is complex64',
    ),
    'a number as classifier': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: {**plain_net().state_dict(), 'fc.weight': torch.ones(())},
        {},
        r"another net's: fc.weight is \(\), but must be",
    ),
    'keys that are no texts': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: {1: torch.ones(1)},
        {},
        'has the key 1, which is no text',
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
    'weights without values': (
        lambda: timm.create_model('cifar_resnet20_se'),
        lambda: timm.create_model('cifar_resnet20', device='meta'),
        {},
        'weights are on the meta device and have no values: conv1.weight',
    ),
    'shared weights': (
        lambda: sharing(timm.create_model('cifar_resnet20_se')),
        lambda: state_of(plain_net()),
        {},
        r'CifarResNet shares layer1.0.conv1.weight with another layer, and the plain net does not',
    ),
    'frozen norms': (
        lambda: freeze_batch_norm_2d(timm.create_model('cifar_resnet20_se')),
        plain_net,
        {},
        'layer1.0 needs the factor 1 .* activation, or weights that are frozen or shared. makes it 2',
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
    'images without images': (
        lambda: timm.create_model('cifar_resnet20_simam'), plain_net, dict(images=256), 'but one is int',
    ),
    'images by name': (
        lambda: timm.create_model('cifar_resnet20_simam'), plain_net, dict(images='folder'), 'but one is str',
    ),
    'images under keys': (
        lambda: timm.create_model('cifar_resnet20_simam'),
        plain_net,
        dict(images=[{'image': real_images(16)}]),
        'but one is dict',
    ),
}  # fmt: skip


def sharing(net: Any) -> nn.Module:
    net.layer1[1].conv1 = net.layer1[0].conv1
    model: nn.Module = net
    return model


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


def test_frozen_norms_may_stay_where_nothing_is_scaled() -> None:
    plain = plain_net().eval()
    model = timm_attn.warm_start(freeze_batch_norm_2d(timm.create_model('cifar_resnet20_gc')), plain).eval()
    images = real_images(4)
    torch.testing.assert_close(model(images), plain(images), atol=1e-5, rtol=1e-4)


def test_a_warning_points_to_the_call() -> None:
    with pytest.warns(UserWarning, match='approximate') as caught:
        timm_attn.warm_start(timm.create_model('cifar_resnet20_simam'), plain_net())
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


class InOneMemory(nn.Module):
    """Two convolutions whose weights are two parameters in one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.b.weight.data = self.a.weight.data

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)).sigmoid()  # type: ignore[no-any-return]


def test_parameters_in_one_memory_cannot_be_scaled_differently() -> None:
    model, plain = InOneMemory(), InOneMemory()
    timm_attn.attach(model, 'se', at='a')
    model.b.weight.data = model.a.module.weight.data
    before = state_of(model)
    with pytest.raises(ValueError, match=r'has parameters in one memory .* of shape \(3, 3, 1, 1\)'):
        timm_attn.warm_start(model, plain)
    assert is_unchanged(model, before)
