"""The join: names, counts, options, the interplay with timm's registry and weights."""

import json
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

from tests.support.nets import on_meta, parameters
from tests.support.reference import PARAMETERS
from timm_attn import ATTENTION, BACKBONES, zoo
from timm_attn.attach import attention_layers
from timm_attn.attention import Attention
from timm_attn.backbones import Backbone

PAIRS = [(b, a) for b, row in BACKBONES.items() for a in ATTENTION if ATTENTION[a].site in row.sites]

# Trainable parameters with 1000 classes, from the papers and the authors' code; MobileNetV2's BAM is not among them.
COLUMNS = ('plain', 'simam', 'se', 'cbam', 'eca', 'srm', 'gc', 'bam_mul')
COUNTS = {
    'resnet18': (11_689_512, 11_689_512, 11_776_552, 11_779_392, 11_689_548, 11_697_192, 11_780_760, 11_712_503),
    'resnet34': (21_797_672, 21_797_672, 21_954_856, 21_960_468, 21_797_746, 21_812_776, 21_963_132, 21_820_663),
    'resnet50': (25_557_032, 25_557_032, 28_071_976, 28_089_624, 25_557_118, 25_617_448, 28_105_032, 25_915_099),
    'resnet101': (44_549_160, 44_549_160, 49_292_328, 49_330_172, 44_549_331, 44_679_208, 49_363_481, 44_907_227),
    'resnext50_32x4d': (25_028_904, 25_028_904, 27_543_848, 27_561_496, 25_028_990, 25_089_320, 27_576_904, 25_386_971),
    'mobilenetv2': (3_504_872, 3_504_872, 3_533_288, 3_536_585, 3_504_931, 3_510_888, 3_536_729),
}
# The same of the nets for small images with 100 classes: the net alone, and with the BAM of the released code.
SMALL_COUNTS = {
    'cifar_resnet20': (278_324, None),
    'cifar_resnet56': (861_620, None),
    'cifar_resnet110': (1_170_868, None),
    'cifar_preresnet20': (278_132, None),
    'cifar_preresnet56': (861_428, None),
    'cifar_preresnet110': (1_169_972, None),
    'cifar_preresnet164': (1_726_388, 1_732_018),
    'cifar_wrn28_8': (23_401_012, 23_422_830),
    'cifar_wrn28_10': (36_536_884, 36_570_756),
    'cifar_wrn40_10': (55_899_444, 55_933_316),
    'cifar_resnext29_8x64d': (34_518_948, 34_604_822),
    'cifar_resnext29_16x64d': (68_247_460, 68_333_334),
    'cifar_mobilenetv2': (2_412_212, None),
    'cifar_densenet100_12': (800_032, 843_006),
    'cifar_resnet50': (23_705_252, 24_063_319),
    'cifar_resnet101': (42_697_380, 43_055_447),
}
# Those of BAM Table 4 with 1000 classes.
WIDE_COUNTS = {
    'wide_resnet18_x1_5': (25_875_816, 25_926_933),
    'wide_resnet18_x2_0': (45_618_216, 45_708_547),
    'squeezenet1_1': (1_235_496, 1_258_487),
}


def test_every_pair_and_the_plain_nets_are_registered() -> None:
    expected = {f'{b}_{a}' for b, a in PAIRS} | {b for b, row in BACKBONES.items() if row.timm is None}
    assert set(zoo.names()) == expected == set(timm.list_models(module='zoo'))
    assert set(timm.list_models('*_simam')) == {f'{b}_simam' for b, row in BACKBONES.items() if 'conv' in row.sites}
    assert 'squeezenet1_1_bam' in zoo.names() and 'squeezenet1_1_se' not in zoo.names()


def test_import_leaves_timms_registry_alone() -> None:
    code = """
import json, timm
before = {n: timm.model_entrypoint(n).__module__ for n in timm.list_models()}
import timm_attn
after = {n: timm.model_entrypoint(n).__module__ for n in timm.list_models()}
print(json.dumps([sum(after[n] != m for n, m in before.items()), len(after) - len(before)]))
"""
    printed = subprocess.run([sys.executable, '-W', 'error', '-c', code], check=True, capture_output=True, text=True)
    assert json.loads(printed.stdout) == [0, len(zoo.names()) + 1]  # and with_attention


@pytest.mark.parametrize('backbone', COUNTS)
def test_parameters_are_the_published_ones(backbone: str) -> None:
    plain = BACKBONES[backbone].timm
    assert plain is not None
    published = dict(zip(COLUMNS, COUNTS[backbone], strict=False))
    ours = {a: parameters(plain if a == 'plain' else f'{backbone}_{a}') for a in published}
    assert ours == published


@pytest.mark.parametrize('backbone', [*SMALL_COUNTS, *WIDE_COUNTS])
def test_parameters_of_the_other_nets(backbone: str) -> None:
    num_classes = 100 if backbone in SMALL_COUNTS else 1000
    plain, bam = (SMALL_COUNTS | WIDE_COUNTS)[backbone]
    assert parameters(backbone, num_classes=num_classes) == plain
    assert bam in (None, parameters(f'{backbone}_bam_mul', num_classes=num_classes))


def test_every_backbone_has_a_count() -> None:
    assert set(COUNTS) | set(SMALL_COUNTS) | set(WIDE_COUNTS) | {'resnet152'} == set(BACKBONES)


@pytest.mark.parametrize('backbone, attention', PAIRS)
def test_layers_add_their_own_parameters(backbone: str, attention: str) -> None:
    """The net is the plain one plus the papers' count of each layer, at the channels that the site has."""
    model = on_meta(f'{backbone}_{attention}')
    added = sum(p.numel() for p in model.parameters()) - parameters(BACKBONES[backbone].timm or backbone)
    channels = [layer.channels for layer in attention_layers(model).values()]
    formula = PARAMETERS[attention]
    assert added == sum(formula(c) for c in channels)


@pytest.mark.parametrize('backbone, attention', PAIRS)
def test_timms_weights_load_strictly(backbone: str, attention: str) -> None:
    plain = on_meta(BACKBONES[backbone].timm or backbone)
    model = on_meta(f'{backbone}_{attention}')
    slots = tuple(f'{path}.' for path in attention_layers(model))
    assert slots
    assert [k for k in model.state_dict() if not k.startswith(slots)] == list(plain.state_dict())


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize(
    'backbone', ['resnet18', 'mobilenetv2', 'cifar_resnet20', 'cifar_preresnet20', 'cifar_mobilenetv2']
)
def test_an_attention_that_does_nothing_changes_nothing(backbone: str, attention: str) -> None:
    """Every layer is called once a forward pass; with layers that pass their input on, the net is the plain one."""
    model = timm.create_model(f'{backbone}_{attention}').eval()
    for name, parameter in model.named_parameters():
        if name.endswith(('bn2.weight', 'bn3.weight')):  # some start at zero, which hides their block
            nn.init.ones_(parameter)
    plain = timm.create_model(BACKBONES[backbone].timm or backbone).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    calls = []
    for path, layer in attention_layers(model).items():
        layer.forward = lambda x, path=path: calls.append(path) or x
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)
    assert calls == list(attention_layers(model))


def test_sites() -> None:
    paths = {name: list(attention_layers(on_meta(name))) for name in zoo.names()}
    assert paths['resnet50_simam'][:2] == ['layer1.0.conv_attn', 'layer1.1.conv_attn']
    assert len(paths['resnet50_simam']) == len(paths['resnet50_se']) == 16
    assert paths['resnet18_se'][0] == 'layer1.0.se' and paths['cifar_resnet20_se'][0] == 'layer1.0.block_attn'
    assert paths['mobilenetv2_eca'][0] == 'blocks.0.0.block_attn' and len(paths['mobilenetv2_eca']) == 17
    assert paths['mobilenetv2_simam'][16] == 'blocks.6.0.conv_attn'
    assert paths['resnet50_bam'] == ['layer1.3', 'layer2.4', 'layer3.6']
    assert paths['mobilenetv2_bam'] == [
        'blocks.0.1',
        'blocks.1.2',
        'blocks.2.3',
        'blocks.3.4',
        'blocks.4.3',
        'blocks.5.3',
    ]
    assert paths['cifar_preresnet110_se'][0] == 'layer1.0.block_attn' and len(paths['cifar_preresnet110_se']) == 36
    assert paths['squeezenet1_1_bam'] == ['stem.3', 'layer1.2', 'layer2.2']
    assert paths['cifar_densenet100_12_bam'][:2] == ['features.transition1.attn_in', 'features.transition1.attn_out']
    assert paths['cifar_wrn40_10_bam'] == ['layer1.6', 'layer2.6']
    assert paths['cifar_resnet50_bam'] == ['layer1.3', 'layer2.4', 'layer3.6']
    assert len(paths['cifar_mobilenetv2_simam']) == 17 and len(paths['cifar_resnext29_8x64d_bamc']) == 9
    assert paths['cifar_resnet20_bam'] == ['layer1.3', 'layer2.3'] and paths['cifar_resnet20'] == []


def test_defaults_of_rows() -> None:
    def option(name: str, attr: str, **kwargs: Any) -> Any:
        return getattr(next(iter(attention_layers(timm.create_model(name, device='meta', **kwargs)).values())), attr)

    assert option('resnet18_simam', 'e_lambda') == option('mobilenetv2_simam', 'e_lambda') == 0.1
    assert option('cifar_resnet20_simam', 'e_lambda') == 1e-4
    assert option('resnet18_simam', 'e_lambda', attn_kwargs=dict(e_lambda=0.5)) == 0.5
    assert option('resnet18_bam_mul', 'combine') == 'product' and option('resnet18_bam', 'combine') == 'sum'


def test_attn_kwargs_reach_every_layer() -> None:
    assert parameters('resnet18_se', attn_kwargs=dict(reduction=4)) - COUNTS['resnet18'][0] == 4 * 87_040


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="no option 'reducton' .*: choose from reduction, bias"):
        timm.create_model('resnet18_se', attn_kwargs=dict(reducton=4))
    with pytest.raises(TypeError, match="no option 'x' .*: it has none"):
        timm.create_model('resnet18_srm', attn_kwargs=dict(x=4))
    with pytest.raises(TypeError, match='takes no attn_kwargs'):
        timm.create_model('cifar_resnet20', attn_kwargs=dict(reduction=4))
    with pytest.raises(TypeError, match='unexpected keyword argument'):
        timm.create_model('cifar_resnet20', deep=4)


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
