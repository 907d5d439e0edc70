"""The join: names, counts, options, the interplay with timm's registry and weights."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from tests.support.nets import on_meta, parameters
from tests.support.reference import PARAMETERS
from timm_attn import ATTENTION, BACKBONES, zoo
from timm_attn.attach import attention_layers

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
