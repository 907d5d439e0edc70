"""pytorchcv's own nets against ours: logits of the same random weights in float64, and what is refused."""

import importlib
import warnings
from typing import Any

import pytest
import timm
import torch
from pytorchcv.models.common import model_store
from torch import nn

import timm_attn
from tests.support.nets import trained_like
from timm_attn.weights.convert import converted
from timm_attn.weights.pytorchcv import NETS

RELEASES = 'https://github.com/osmr/imgclsmob/releases/download/'
# module of pytorchcv, its net, ours, parameters, file in the releases, SHA-1 of the .pth
ROWS = [
    (
        'cbamresnet',
        'cbam_resnet50',
        'resnet50_cbam',
        28_089_624,
        'v0.0.537/cbam_resnet50-0505-d8cf8488.pth.zip',
        'd8cf8488efb97afecd6b3287a3ca9fa093fc3127',
    ),
    (
        'bamresnet',
        'bam_resnet50',
        'resnet50_bam_mul',
        25_915_099,
        'v0.0.499/bam_resnet50-0547-a04adf3c.pth.zip',
        'a04adf3c93f56836509f66668aa90360c9688eb8',
    ),
    (
        'seresnet',
        'seresnet18',
        'resnet18_se',
        11_778_592,
        'v0.0.355/seresnet18-0961-022123a5.pth.zip',
        '022123a5e88c9917e63165f5b5a7808a606d452a',
    ),
    (
        'seresnet',
        'seresnet50b',
        'resnet50_se',
        28_088_024,
        'v0.0.387/seresnet50b-0539-459e6871.pth.zip',
        '459e6871e944d1c7102ee9c055ea428b8d9a168c',
    ),
    (
        'seresnet',
        'seresnet101b',
        'resnet101_se',
        49_326_872,
        'v0.0.460/seresnet101b-0487-b83a20fd.pth.zip',
        'b83a20fd2ad9a32e0fe5cb3daef45aac03ea3194',
    ),
    (
        'seresnext',
        'seresnext50_32x4d',
        'resnext50_32x4d_se',
        27_559_896,
        'v0.0.505/seresnext50_32x4d-0451-52029a7f.pth.zip',
        '52029a7f6170873b2d50a7016fba053e98183f7b',
    ),
    (
        'squeezenet',
        'squeezenet_v1_1',
        'squeezenet1_1',
        1_235_496,
        'v0.0.88/squeezenet_v1_1-1772-25b77bc3.pth.zip',
        '25b77bc39e35612abbe7c2344d2c3e1e6756c2f8',
    ),
    (
        'seresnet_cifar',
        'seresnet20_cifar10',
        'cifar_resnet20_se',
        274_847,
        'v0.0.362/seresnet20_cifar10-0601-935d8943.pth.zip',
        '935d89433e803c8a3027c81f1267401e7caccce6',
    ),
    (
        'seresnet_cifar',
        'seresnet20_cifar100',
        'cifar_resnet20_se',
        280_697,
        'v0.0.362/seresnet20_cifar100-2854-8c7abf66.pth.zip',
        '8c7abf66d8c1418cb3ca760f5d1efbb42738036b',
    ),
    (
        'seresnet_cifar',
        'seresnet20_svhn',
        'cifar_resnet20_se',
        274_847,
        'v0.0.362/seresnet20_svhn-0323-d77df31c.pth.zip',
        'd77df31c62d1504209a5ba47e59ccb0ae84500b2',
    ),
    (
        'seresnet_cifar',
        'seresnet56_cifar10',
        'cifar_resnet56_se',
        862_889,
        'v0.0.362/seresnet56_cifar10-0413-b61c1439.pth.zip',
        'b61c143989cb2901bec48dded4c6ddcae91aabc4',
    ),
    (
        'seresnet_cifar',
        'seresnet56_cifar100',
        'cifar_resnet56_se',
        868_739,
        'v0.0.362/seresnet56_cifar100-2294-7fa54f45.pth.zip',
        '7fa54f4593f364c2363cb3ee8d5bc1285af1ade5',
    ),
    (
        'seresnet_cifar',
        'seresnet56_svhn',
        'cifar_resnet56_se',
        862_889,
        'v0.0.362/seresnet56_svhn-0264-93839c76.pth.zip',
        '93839c762a97bd0b5bd27c71fd64c227afdae3ed',
    ),
    (
        'resnet_cifar',
        'resnet20_cifar10',
        'cifar_resnet20',
        272_474,
        'v0.0.163/resnet20_cifar10-0597-9b0024ac.pth.zip',
        '9b0024ac4c2f374cde2c5052e0d0344a75871cdb',
    ),
    (
        'resnet_cifar',
        'resnet20_cifar100',
        'cifar_resnet20',
        278_324,
        'v0.0.180/resnet20_cifar100-2964-a5322afe.pth.zip',
        'a5322afed92fa96cb7b3453106f73cf38e316151',
    ),
    (
        'resnet_cifar',
        'resnet20_svhn',
        'cifar_resnet20',
        272_474,
        'v0.0.265/resnet20_svhn-0343-8232e6e4.pth.zip',
        '8232e6e4c2c9fac1200386b68311c3bd56f483f5',
    ),
    (
        'resnet_cifar',
        'resnet56_cifar10',
        'cifar_resnet56',
        855_770,
        'v0.0.163/resnet56_cifar10-0452-628c42a2.pth.zip',
        '628c42a26fe347b84060136212e018df2bb35e0f',
    ),
    (
        'resnet_cifar',
        'resnet56_cifar100',
        'cifar_resnet56',
        861_620,
        'v0.0.181/resnet56_cifar100-2488-d65f53b1.pth.zip',
        'd65f53b10ad5d124698e728432844c65261c3107',
    ),
    (
        'resnet_cifar',
        'resnet56_svhn',
        'cifar_resnet56',
        855_770,
        'v0.0.265/resnet56_svhn-0275-6e08ed92.pth.zip',
        '6e08ed929b8f0ee649f75464f06b557089023290',
    ),
    (
        'wrn_cifar',
        'wrn28_10_cifar10',
        'cifar_wrn28_10',
        36_479_194,
        'v0.0.166/wrn28_10_cifar10-0239-fe97dcd6.pth.zip',
        'fe97dcd6d0dd8dda8e9e38e6cfa320cffb9955ce',
    ),
    (
        'wrn_cifar',
        'wrn28_10_cifar100',
        'cifar_wrn28_10',
        36_536_884,
        'v0.0.320/wrn28_10_cifar100-1788-8c3fe818.pth.zip',
        '8c3fe8185d3af9cc3813fe376cab895f6780ac18',
    ),
    (
        'wrn_cifar',
        'wrn28_10_svhn',
        'cifar_wrn28_10',
        36_479_194,
        'v0.0.276/wrn28_10_svhn-0271-d62b6bba.pth.zip',
        'd62b6bbaef7228706a67c2c8416681f97c6d4688',
    ),
    (
        'densenet_cifar',
        'densenet100_k12_bc_cifar10',
        'cifar_densenet100_12',
        769_162,
        'v0.0.189/densenet100_k12_bc_cifar10-0416-b9232829.pth.zip',
        'b9232829b13c3f3f2ea15f4be97f500b7912c3c2',
    ),
    (
        'densenet_cifar',
        'densenet100_k12_bc_cifar100',
        'cifar_densenet100_12',
        800_032,
        'v0.0.208/densenet100_k12_bc_cifar100-2119-05a6f027.pth.zip',
        '05a6f02772afda51a612f5b92aadf19ffb60eb72',
    ),
]
FIRST = {ours: (module, net) for module, net, ours, *_ in reversed(ROWS)}  # of nets that differ in classes only


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
    module, net = FIRST[ours]
    assert net.removesuffix('_cifar10') == NETS[ours].name
    assert difference(theirs(module, net), ours) < 1e-12


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


@pytest.mark.parametrize('module, net, ours, num_params, file, sha1', ROWS, ids=[row[1] for row in ROWS])
def test_every_published_net_fits(
    module: str, net: str, ours: str, num_params: int, file: str, sha1: str, tmp_path: Any, monkeypatch: Any
) -> None:
    state = theirs(module, net).state_dict()
    tensors = converted(state, ours, options(ours))
    classes = next(reversed(tensors.values())).shape[0]
    model = timm.create_model(ours, num_classes=classes, device='meta', **options(ours))
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == num_params == model_store.get_model_weight_count(net)
    assert model_store.get_model_name_suffix_data(net)[1] == sha1

    asked = []
    monkeypatch.setattr(model_store, '_download', lambda url, **kwargs: asked.append(url))
    with pytest.raises(FileNotFoundError):  # nothing was downloaded
        model_store.get_model_file(net, str(tmp_path))
    assert asked == [RELEASES + file]
