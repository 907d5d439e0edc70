"""Layouts of state dicts, and what cannot be converted. Parity with the authors' logits is in test_parity.py."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import timm_attn
from tests.support.vectors import reference_state_dict
from timm_attn.weights.trained import trained_model

ROW = 'resnet18_eca[k3577]'


def test_wrappers_prefixes_and_counters() -> None:
    bare = reference_state_dict(ROW)
    expected = timm_attn.convert_state_dict(bare, 'resnet18_eca')
    counted = {**bare, 'layer1.0.conv1.total_ops': torch.zeros(1), 'total_params': torch.zeros(1)}
    parallel = {f'module.{k}': v for k, v in counted.items()}
    for variant in (counted, parallel, {'state_dict': parallel, 'epoch': 3, 'arch': 'se_resnet50'}, {'net': bare}):
        converted = timm_attn.convert_state_dict(variant, 'resnet18_eca')
        assert list(converted) == list(expected)
        assert all(torch.equal(converted[k], v) for k, v in expected.items())


@pytest.mark.parametrize('name', ['resnet50', 'mobilenetv2_100'])
def test_timms_own_layout_and_other_heads(name: str) -> None:
    ours = {'resnet50': 'resnet50_simam', 'mobilenetv2_100': 'mobilenetv2_simam'}[name]
    state = timm.create_model(name, num_classes=7, in_chans=1).state_dict()
    converted = timm_attn.convert_state_dict(state, ours)
    timm.create_model(ours, num_classes=7, in_chans=1).load_state_dict(converted, strict=True)


OPTIONS = [
    ('cifar_resnet20_se', dict(attn_kwargs=dict(bias=True))),
    ('resnet18_eca', dict(attn_kwargs=dict(layers=2))),
    ('cifar_resnet20_bam', dict(attn_kwargs=dict(norm='inner'))),
    ('cifar_resnet20_bam', dict(attn_kwargs=dict(branches='channel'))),
    ('cifar_densenet100_12_bam', dict(attn_kwargs=dict(reduction=4))),
    ('resnet18_simam', dict(global_pool='catavgmax')),
    ('resnet18_simam', dict(stem_type='deep')),
    ('repvgg_a0', {}),  # of timm, with two first convolutions
    ('deit_tiny_distilled_patch16_224', {}),  # and with two heads
]


@pytest.mark.parametrize('name, options', OPTIONS)
def test_options_that_change_the_keys(name: str, options: dict[str, Any]) -> None:
    state = timm.create_model(name, num_classes=7, **options).state_dict()
    content = {'state_dict': state, 'recipe': {'model_kwargs': options}}
    model = trained_model(content, name, Path('last.pth.tar')).model
    assert model.num_classes == 7 and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    if options:
        with pytest.raises(ValueError, match='has keys that the model lacks|has shape|does not fit'):
            trained_model({'state_dict': state}, name, Path('last.pth.tar'))


def test_torchvisions_layouts() -> None:
    import torchvision

    for theirs, ours in (('resnet18', 'resnet18_simam'), ('mobilenet_v2', 'mobilenetv2_simam')):
        net = torchvision.models.get_model(theirs, weights=None).eval()
        model = timm.create_model(ours).eval()
        plain = timm.create_model(timm_attn.BACKBONES[ours.removesuffix('_simam')].timm).eval()
        converted = timm_attn.convert_state_dict(net.state_dict(), ours)
        model.load_state_dict(converted, strict=True)
        plain.load_state_dict(converted, strict=True)
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(plain(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'row, name, message',
    [
        ('resnet50_bam_mul', 'resnet50_bam', r'such as bam1\..*These are the keys of resnet50_bam_mul'),
        (
            'resnet18_se',
            'resnet18_simam',
            r'such as layer1\.0\.bn2\.1\.fc\.0\.weight.*These are the keys of resnet18_se',
        ),
        (
            'resnet18_simam',
            'resnet18_se',
            r'lacks layer1\.0\.se\.fc1\.weight.*timm_attn\.warm_start starts.* keys of resnet18, resnet18_simam',
        ),
        (
            'resnet50_bam_mul[pytorchcv]',
            'resnet50_bam',
            r'pytorchcv\'s, which do not tell .*These are the keys of resnet50_bam_mul',
        ),
        ('resnet18_simam', 'resnet34_simam', r'lacks layer1\.2\.conv1\.weight'),
        ('resnet18_simam', 'cifar_resnet20_simam', 'keys that the model lacks, such as layer4'),
    ],
)
def test_what_does_not_fit_is_named(row: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm_attn.convert_state_dict(reference_state_dict(row), name)


def test_shapes_are_checked() -> None:
    state = reference_state_dict('resnet18_simam')
    state['layer1.0.conv1.weight'] = torch.zeros(64, 64, 1, 1)
    with pytest.raises(
        ValueError, match=r'layer1.0.conv1.weight has shape \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\)'
    ):
        timm_attn.convert_state_dict(state, 'resnet18_simam')


def test_files_that_count_no_batches() -> None:
    state = timm.create_model('resnet18').state_dict()
    old = {k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}
    converted = timm_attn.convert_state_dict(old, 'resnet18_simam')
    timm.create_model('resnet18_simam').load_state_dict(converted, strict=True)
    assert converted['bn1.num_batches_tracked'] == 0


def test_what_is_no_state_dict() -> None:
    with pytest.raises(ValueError, match='maps keys to tensors, but got ResNet'):
        timm_attn.convert_state_dict(timm.create_model('resnet18'), 'resnet18_simam')  # type: ignore[arg-type]
    twice = {'fc.bias': torch.zeros(2), 'module.fc.bias': torch.ones(2)}
    with pytest.raises(ValueError, match='fc.bias twice, with different prefixes, such as in module.fc.bias'):
        timm_attn.convert_state_dict(twice, 'resnet18_simam')
    for state in ({'epoch': 3}, {'state_dict': {'epoch': 3}}):
        with pytest.raises(ValueError, match='maps texts to tensors, but epoch is int'):
            timm_attn.convert_state_dict(state, 'resnet18_simam')
    with pytest.raises(ValueError, match="Unknown model 'resnet18_sam'"):
        timm_attn.convert_state_dict({}, 'resnet18_sam')
