"""Rows of the zoo: an eighth attention, another backbone, names of others; options that reach the nets."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers import DropPath
from torch import Tensor, nn

from tests.support.nets import parameters
from timm_attn import ATTENTION, BACKBONES, zoo
from timm_attn.attach import attention_layers
from timm_attn.attention import Attention
from timm_attn.backbones import Backbone


def test_defaults_of_rows() -> None:
    def option(name: str, attr: str, **kwargs: Any) -> Any:
        return getattr(next(iter(attention_layers(timm.create_model(name, device='meta', **kwargs)).values())), attr)

    assert option('resnet18_simam', 'e_lambda') == option('mobilenetv2_simam', 'e_lambda') == 0.1
    assert option('cifar_resnet20_simam', 'e_lambda') == 1e-4
    assert option('resnet18_simam', 'e_lambda', attn_kwargs=dict(e_lambda=0.5)) == 0.5
    assert option('resnet18_bam_mul', 'combine') == 'product' and option('resnet18_bam', 'combine') == 'sum'


def test_attn_kwargs_reach_every_layer() -> None:
    assert parameters('resnet18_se', attn_kwargs=dict(reduction=4)) - parameters('resnet18') == 4 * 87_040


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="no option 'reducton' .*: choose from reduction, bias"):
        timm.create_model('resnet18_se', attn_kwargs=dict(reducton=4))
    with pytest.raises(TypeError, match="no option 'x' .*: it has none"):
        timm.create_model('resnet18_srm', attn_kwargs=dict(x=4))
    with pytest.raises(TypeError, match='takes no attn_kwargs'):
        timm.create_model('cifar_resnet20', attn_kwargs=dict(reduction=4))
    with pytest.raises(TypeError, match='unexpected keyword argument'):
        timm.create_model('cifar_resnet20', deep=4)
    for name, message in ('resnet18_se', 'must map options to values, .* but is 5'), ('cifar_resnet20', 'but got 5'):
        with pytest.raises(TypeError, match=message):
            timm.create_model(name, attn_kwargs=5)


class Doubled(nn.Module):
    """A toy attention."""

    def __init__(self, channels: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 2.0, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


@pytest.fixture
def forget() -> Iterator[None]:
    """Takes what a test registered out of the registry again."""
    before = set(zoo.names())
    yield
    for name in set(zoo.names()) - before:
        timm.models._registry._clear_model_entries(name)
        timm.models._registry._model_entrypoints.pop(name)
        del zoo.default_cfgs[name], zoo._models[name]


@pytest.mark.parametrize('site', ['conv', 'block', 'stage'])
def test_an_eighth_attention_is_one_row(site: Any, forget: None) -> None:
    zoo.register({'doubled': Attention(Doubled, site, 'Doubled', 'a test')})
    for backbone in (b for b, row in BACKBONES.items() if site in row.sites):
        model = timm.create_model(f'{backbone}_doubled', device='meta')
        assert any(isinstance(m, Doubled) for m in model.modules())
    assert timm.create_model('cifar_resnet20_doubled')(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_another_backbone_is_one_row(forget: None) -> None:
    row = Backbone(
        BACKBONES['resnet18'].build, 'Another', BACKBONES['resnet18'].cfg, stages=('layer1',), sites=('stage',)
    )
    zoo.register(ATTENTION, {'another': row})
    assert set(timm.list_models('another*')) == {'another', 'another_bam', 'another_bam_mul'}


def test_our_names_may_be_registered_again_but_not_those_of_others(forget: None) -> None:
    before = timm.model_entrypoint('resnet18_se')
    zoo.register()
    assert timm.model_entrypoint('resnet18_se') is before
    zoo.register({'doubled': Attention(Doubled, 'block', 'Doubled', 'a test')})
    zoo.register({'doubled': Attention(nn.Dropout, 'block', 'Other', 'a test')}, {})
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        zoo.register({'doubled': Attention(Doubled, 'conv', 'Doubled', 'a test')})
    assert hasattr(timm.create_model('resnet18_doubled', device='meta').layer1[0], 'conv_attn')
    with pytest.raises(RuntimeError, match="'resnet50' is already registered by timm.models.resnet"):
        zoo.register({}, {'resnet50': Backbone(nn.Identity, 'x', {})})


def test_a_second_import_registers_the_same_names() -> None:
    code = """
import sys, timm, timm_attn
names = timm_attn.zoo.names()
for module in [m for m in sys.modules if m.startswith('timm_attn')]:
    del sys.modules[module]
import timm_attn as again
from timm_attn.attach import attention_layers
assert again.zoo.names() == names
assert len(attention_layers(timm.create_model('resnet18_se', device='meta'))) == 8
"""
    subprocess.run([sys.executable, '-W', 'error', '-c', code], check=True, capture_output=True)


def test_sync_batchnorm_keeps_the_attention() -> None:
    model = timm.create_model('resnet18_simam')
    converted = timm.layers.convert_sync_batchnorm(model)
    assert len(attention_layers(converted)) == 8


def test_layers_follow_device_and_dtype() -> None:
    model = timm.create_model('cifar_resnet20_se', dtype=torch.float64, device='meta')
    assert {p.dtype for p in model.parameters()} == {torch.float64} and {p.device.type for p in model.parameters()} == {
        'meta'
    }


def test_squeezenet_is_torchvisions() -> None:
    theirs, ours = torchvision.models.squeezenet1_1(weights=None).eval(), timm.create_model('squeezenet1_1').eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


RESIDUAL = [name for name, row in BACKBONES.items() if name.startswith('cifar') and 'block' in row.sites]


@pytest.mark.parametrize('name', RESIDUAL)
def test_stochastic_depth(name: str) -> None:
    """As in timm's ResNet: none in the first block, the whole rate in the last; without a rate there is no module."""
    plain, dropping = (timm.create_model(name, device='meta', drop_path_rate=rate) for rate in (0.0, 0.5))
    rates = [m.drop_prob for m in dropping.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates) and rates[0] > 0 and rates[-1] > 0.4
    assert not any(isinstance(m, DropPath) for m in plain.modules())
    assert dropping.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize('name', ['cifar_resnet20_se', 'cifar_preresnet20_eca', 'cifar_resnet110', 'cifar_mobilenetv2'])
def test_dropped_paths_leave_the_shortcut(name: str) -> None:
    net = timm.create_model(name, drop_path_rate=0.5).eval()
    twin = timm.create_model(name).eval()
    twin.load_state_dict(net.state_dict())
    x = torch.randn(8, 3, 32, 32)
    torch.testing.assert_close(net(x), twin(x))
    blocks = [m for m in net.modules() if getattr(m, 'drop_path', None) is not None]
    block = next(m for m in blocks if m.downsample is None).train()
    block.drop_path.drop_prob = 1.0
    x = torch.rand(2, block.get_submodule('conv1' if hasattr(block, 'conv1') else 'conv_pw').in_channels, 8, 8)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize(
    'name, own',
    [
        ('cifar_resnet20_se', 4),
        ('cifar_resnet50', 8),
        ('cifar_mobilenetv2', 8),
        ('cifar_densenet100_12_bam', 4),
        ('squeezenet1_1', 16),
    ],
)
def test_output_stride_of_nets_that_have_one(name: str, own: int) -> None:
    timm.create_model(name, device='meta', output_stride=own)
    with pytest.raises(ValueError, match=f'output_stride must be {own}, .* but got 2'):
        timm.create_model(name, device='meta', output_stride=2)


@pytest.mark.parametrize('indices', [(1, 2, 3, 4), (-5,), 5])
@pytest.mark.parametrize('name', ['cifar_resnet20_se', 'cifar_densenet100_12'])
def test_features_that_a_net_does_not_have(name: str, indices: Any) -> None:
    with pytest.raises(ValueError, match='out_indices must be from 0 to 3 .* but got'):
        timm.create_model(name, device='meta', features_only=True, out_indices=indices)
    assert len(timm.create_model(name, features_only=True, out_indices=(0, -1)).feature_info.channels()) == 2
