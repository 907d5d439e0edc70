"""pytorchcv's own nets against ours: logits of the same random weights in float64, and what is refused."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pytorchcv.models.common import model_store
from torch import nn

import timm_attn
from tests.support.nets import trained_like
from timm_attn.weights.convert import converted
from timm_attn.weights.manifest import Checkpoint, checkpoints
from timm_attn.weights.pytorchcv import NETS

RECORDS = [c for c in checkpoints() if c.kind == 'mirrored' and c.tag.startswith('osmr_')]
MODULES = {  # of pytorchcv, by our name
    'resnet50_cbam': 'cbamresnet',
    'resnet50_bam_mul': 'bamresnet',
    'resnet18_se': 'seresnet',
    'resnet50_se': 'seresnet',
    'resnet101_se': 'seresnet',
    'resnext50_32x4d_se': 'seresnext',
    'squeezenet1_1': 'squeezenet',
    'cifar_resnet20': 'resnet_cifar',
    'cifar_resnet56': 'resnet_cifar',
    'cifar_resnet20_se': 'seresnet_cifar',
    'cifar_resnet56_se': 'seresnet_cifar',
    'cifar_wrn28_10': 'wrn_cifar',
    'cifar_densenet100_12': 'densenet_cifar',
}
TAKEN = [net.name for net in NETS.values()]
FIRST = {ours: (MODULES[ours], NETS[ours].name + '_cifar10' * ours.startswith('cifar')) for ours in NETS}


def theirs(module: str, net: str) -> Any:
    """pytorchcv's net without storage, with a last pool for maps of any size."""
    with torch.device('meta'):
        model: Any = getattr(importlib.import_module(f'pytorchcv.models.{module}'), net)().eval()
    owner = model.features if hasattr(model.features, 'final_pool') else model.output
    owner.final_pool = nn.AdaptiveAvgPool2d(1)
    return model


def options(ours: str) -> dict[str, Any]:
    return dict(attn_kwargs=dict(bias=True)) if ours.endswith('_se') else {}


def difference(net: nn.Module, ours: str) -> float:
    """The largest difference of our logits to a net's with the same weights, in parts of the largest."""
    state = trained_like(net.state_dict())
    net.load_state_dict(state, assign=True)
    model = timm.create_model(ours, device='meta', **options(ours)).eval()
    model.load_state_dict(converted(state, ours, options(ours)), strict=True, assign=True)
    size = 16 if ours.startswith('cifar') else 64
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, expected = model(x), net(x)
    assert (expected[0] - expected[1]).abs().max() > 1e-4 * expected.abs().max(), 'they depend on the image'
    return ((logits - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('ours', NETS)
def test_logits_are_pytorchcvs(ours: str) -> None:
    assert difference(theirs(*FIRST[ours]), ours) < 1e-12


@pytest.mark.parametrize('module, ours', [('seresnet', 'resnet50_se'), ('squeezenet', 'squeezenet1_1')])
def test_a_twin_has_the_keys_but_not_the_logits(module: str, ours: str) -> None:
    assert difference(theirs(module, NETS[ours].twin), ours) > 0.01


@pytest.mark.parametrize('ours', NETS)
def test_a_bare_file_that_may_be_a_twins_is_taken_with_a_warning(ours: str) -> None:
    net = NETS[ours]
    state = theirs(*FIRST[ours]).state_dict()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        timm_attn.convert_state_dict({'state_dict': state}, ours, **options(ours))
    said = [str(warning.message) for warning in caught]
    assert len(said) == (1 if net.twin else 0)
    assert all(f"pytorchcv's {net.name}:" in text and f'of {net.twin},' in text for text in said)


# Module, net, and the name of ours that has the same number of parameters or is nearest to it.
REFUSED = [
    ('preresnet_cifar', 'preresnet20_cifar10', 'cifar_preresnet20'),
    ('preresnet_cifar', 'preresnet56_cifar10', 'cifar_preresnet56'),
    ('preresnet_cifar', 'preresnet164bn_cifar10', 'cifar_preresnet164'),
    ('sepreresnet_cifar', 'sepreresnet20_cifar10', 'cifar_preresnet20_se'),
    ('resnext_cifar', 'resnext29_16x64d_cifar10', 'cifar_resnext29_16x64d'),
    ('resnet_cifar', 'resnet110_cifar10', 'cifar_resnet110'),
    ('resnet', 'resnet50', 'resnet50'),
    ('resnet', 'resnet50b', 'resnet50_simam'),
    ('seresnet', 'seresnet152b', 'resnet152_se'),
    ('bamresnet', 'bam_resnet101', 'resnet101_bam_mul'),
    ('cbamresnet', 'cbam_resnet18', 'resnet18_cbam'),
    ('mobilenetv2', 'mobilenetv2_w1', 'mobilenetv2_se'),
]


@pytest.mark.parametrize('module, net, ours', REFUSED)
def test_other_nets_are_refused(module: str, net: str, ours: str) -> None:
    state = theirs(module, net).state_dict()
    message = rf"does not fit {ours}: its keys, such as features\.init_block\.\S+, are pytorchcv's, .* taken only as"
    with pytest.raises(ValueError, match=message):
        timm_attn.convert_state_dict(state, ours, **options(ours))


@pytest.mark.parametrize(
    'net, ours', [('preresnet20_cifar10', 'cifar_resnet20'), ('preresnet164bn_cifar10', 'resnet50_se')]
)
def test_another_net_under_a_name_that_is_taken(net: str, ours: str) -> None:
    with pytest.raises(ValueError, match=rf'does not fit {ours}: it has keys that the model lacks, such as features\.'):
        timm_attn.convert_state_dict(theirs('preresnet_cifar', net).state_dict(), ours, **options(ours))


def test_every_published_file_has_a_record() -> None:
    """Of the nets that are ours, whatever they are trained on; the data set is the end of a name."""
    published = {
        net
        for net, (_, _, sha1, _) in model_store.get_model_metainfo_dict().items()
        if sha1 != 'NA' and net.removesuffix('_cifar10').removesuffix('_cifar100').removesuffix('_svhn') in TAKEN
    }
    assert published == {name_of(record) for record in RECORDS} and len(RECORDS) == len(published) == 24


def name_of(record: Checkpoint) -> str:
    """Of a record's net in pytorchcv."""
    data = record.tag.removeprefix('osmr_')
    return NETS[record.name].name + ('' if data == 'in1k' else f'_{data}')


@pytest.mark.parametrize('record', RECORDS, ids=lambda record: record.full_name)
def test_a_record_is_of_the_net_and_file_that_pytorchcv_means(
    record: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, ours = name_of(record), record.name
    assert record.model_args == options(ours)
    tensors = converted(theirs(MODULES[ours], net).state_dict(), ours, record.model_args)
    model = timm.create_model(ours, num_classes=record.cfg['num_classes'], device='meta', **record.model_args)
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in model.state_dict().items()}
    num_params = sum(p.numel() for p in model.parameters())
    assert num_params == record.num_params == model_store.get_model_weight_count(net)

    code, sha1, _ = model_store.get_model_name_suffix_data(net)
    (metric,) = record.metrics
    assert record.origin['sha1'] == sha1
    assert metric['top5' if record.tag == 'osmr_in1k' else 'top1'] == pytest.approx(100 - int(code) / 100)

    asked = []
    monkeypatch.setattr(model_store, '_download', lambda url, **kwargs: asked.append(url))
    with pytest.raises(FileNotFoundError):  # nothing was downloaded
        model_store.get_model_file(net, str(tmp_path))
    assert asked == [record.origin['url']]
