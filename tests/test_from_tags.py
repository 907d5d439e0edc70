"""`from_` tags: every form in which timm and its scripts hand them over, sources, heads, channels, copies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import get_arch_pretrained_cfgs, save_for_hf
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from tests.support.commands import fail_cli, run_cli
from timm_attn import ATTENTION, BACKBONES
from timm_attn.attach import attention_layers
from timm_attn.data.fashion_mnist import FashionMNIST

PLAIN = 'cifar_resnet20'
NAME = f'{PLAIN}_cbam.from_fmnist'
IMAGES = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
# backbones whose plain nets have no weights
WITHOUT = ['wide_resnet18_x1_5', 'wide_resnet18_x2_0', 'cifar_resnet110', 'cifar_preresnet20', 'cifar_preresnet56',
           'cifar_preresnet110', 'cifar_preresnet164', 'cifar_wrn28_8', 'cifar_wrn40_10', 'cifar_resnext29_8x64d',
           'cifar_resnext29_16x64d', 'cifar_mobilenetv2', 'cifar_resnet50', 'cifar_resnet101']  # fmt: skip


@torch.inference_mode()
def outputs(model: Any, images: Tensor = IMAGES) -> Tensor:
    result: Tensor = model.eval()(images)
    return result


def assert_same_outputs(model: Any, plain: Any, images: Tensor = IMAGES) -> None:
    expected = outputs(plain, images)
    assert (outputs(model, images) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture(scope='module')
def plain() -> Any:
    return timm.create_model(PLAIN, pretrained=True)


@pytest.mark.parametrize('key', [key for key in ATTENTION if key != 'simam'])
def test_a_bundled_plain_net_starts_every_attention(key: str, plain: Any) -> None:
    model = timm.create_model(f'{PLAIN}_{key}.from_fmnist', pretrained=True)
    assert_same_outputs(model, plain)
    cfg: Any = model.pretrained_cfg
    assert cfg['tag'] == 'from_fmnist' and cfg['label_names'] == plain.pretrained_cfg['label_names']
    assert (cfg['mean'], cfg['license']) == (plain.pretrained_cfg['mean'], plain.pretrained_cfg['license'])


def test_simam_starts_approximately(plain: Any) -> None:
    with pytest.warns(UserWarning, match='SimAM'):
        model = timm.create_model(f'{PLAIN}_simam.from_fmnist', pretrained=True)
    naive = timm.create_model(f'{PLAIN}_simam')
    naive.load_state_dict(plain.state_dict())
    photos = FashionMNIST('validation')
    pixels = torch.stack([to_tensor(photos.image(i)) for i in range(64)])
    images = ((pixels - plain.pretrained_cfg['mean'][0]) / plain.pretrained_cfg['std'][0]).expand(-1, 3, -1, -1)
    wrong, right = ((outputs(net, images) - outputs(plain, images)).pow(2).mean() for net in (naive, model))
    assert right < wrong / 4


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    'tag': lambda: dict(tag='from_fmnist'),
    'string': lambda: dict(pretrained_cfg='from_fmnist'),
    'dict': lambda: dict(pretrained_cfg=vars(timm.get_pretrained_cfg(NAME))),
    'cfg': lambda: dict(pretrained_cfg=timm.get_pretrained_cfg(NAME)),
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_of_the_tag(form: str, plain: Any) -> None:
    model = timm.create_model(f'{PLAIN}_cbam', pretrained=True, **FORMS[form]())
    assert_same_outputs(model, plain)


@pytest.mark.parametrize('source', ['file', 'state_dict'])
@pytest.mark.parametrize('key', ['eca', 'simam'])
@pytest.mark.filterwarnings('ignore:.*SimAM:UserWarning')
def test_a_source_of_the_callers_is_the_plain_nets(key: str, source: str, tmp_path: Path) -> None:
    """SimAM has the plain net's keys: unfolded, its file would load without a word."""
    plain = timm.create_model('resnet18', num_classes=7)
    for name, value in plain.state_dict().items():
        if name.endswith('running_mean'):
            value.normal_(0, 0.1)
    given = {k: v.clone() for k, v in plain.state_dict().items()}
    save_file(given, tmp_path / 'plain.safetensors')
    overlay = {source: str(tmp_path / 'plain.safetensors') if source == 'file' else given, 'num_classes': 7}
    model = timm.create_model(
        f'resnet18_{key}.from_a1_in1k', pretrained=True, num_classes=7, pretrained_cfg_overlay=overlay
    )
    images = torch.randn(2, 3, 64, 64)
    if key == 'eca':
        assert_same_outputs(model, plain, images)
    else:
        state = model.state_dict()
        assert not torch.equal(state['layer1.0.bn2.running_var'], given['layer1.0.bn2.running_var'])


def test_a_saved_copy_is_not_folded_again(plain: Any, tmp_path: Path) -> None:
    model = timm.create_model(NAME, pretrained=True, attn_kwargs=dict(reduction=4))
    assert_same_outputs(model, plain)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    copy = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, attn_kwargs=dict(reduction=4))
    assert torch.equal(outputs(copy), outputs(model)) and copy.pretrained_cfg['tag'] == 'from_fmnist'


def test_other_classes_and_channels(plain: Any) -> None:
    model = timm.create_model(NAME, pretrained=True, num_classes=3, in_chans=1)
    assert outputs(model, IMAGES[:, :1]).shape == (4, 3) and 'label_names' not in model.pretrained_cfg
    grey = timm.create_model(PLAIN, pretrained=True, num_classes=3, in_chans=1)
    features, expected = (net.eval().forward_features(IMAGES[:, :1]) for net in (model, grey))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_features_and_half_precision(plain: Any) -> None:
    maps = timm.create_model(NAME, pretrained=True, features_only=True).eval()(IMAGES)
    expected = timm.create_model(PLAIN, pretrained=True, features_only=True).eval()(IMAGES)
    torch.testing.assert_close(maps[-1], expected[-1], rtol=1e-4, atol=1e-4)
    model = timm.create_model(NAME, pretrained=True, dtype=torch.bfloat16)
    same = outputs(model, IMAGES.bfloat16()).argmax(1) == outputs(plain).argmax(1)
    assert next(model.parameters()).dtype == torch.bfloat16 and same.all()


def test_the_registry() -> None:
    starts = timm.list_pretrained('*.from_*')
    assert len(starts) == 94
    names = {start.partition('.')[0] for start in starts}
    pairs = [(b, a) for b, row in BACKBONES.items() for a in ATTENTION if ATTENTION[a].site in row.sites]
    assert names == {f'{b}_{a}' for b, a in pairs if b not in WITHOUT}
    assert timm.get_pretrained_cfg('resnet50_simam').tag == 'authors_in1k'  # a start is never the default
    assert timm.get_pretrained_cfg('resnet50_gc').tag is None
    cfgs = get_arch_pretrained_cfgs('resnet50_gc')
    assert {n.partition('.from_')[2] for n in cfgs} - {''} == {
        c.tag for c in get_arch_pretrained_cfgs('resnet50').values()
    }
    assert cfgs['resnet50_gc.from_fb_ssl_yfcc100m_ft_in1k'].license == 'cc-by-nc-4.0'
    assert [n for n, cfg in cfgs.items() if cfg.has_weights] == ['resnet50_gc.from_a1_in1k']


def test_names_without_weights_of_their_own() -> None:
    with pytest.raises(
        RuntimeError, match='for resnet50_gc: use resnet50_gc.from_a1_in1k, which starts from the plain'
    ):
        timm.create_model('resnet50_gc', pretrained=True)
    with pytest.raises(RuntimeError, match="from_x.: resnet18 has no weights 'x'; choose from from_a1_in1k, from_a2"):
        timm.create_model('resnet18_gc.from_x', pretrained=True)
    with pytest.raises(ValueError, match='folds the plain weights: it takes no pretrained_filter_fn'):
        timm.create_model(NAME, pretrained=True, pretrained_filter_fn=lambda state_dict, model: state_dict)


def test_an_offline_hub_is_said_at_once() -> None:
    with pytest.raises(RuntimeError, match='The weights of resnet18.a1_in1k must be fetched .* HF_HUB_OFFLINE is set'):
        timm.create_model('resnet18_gc.from_a1_in1k', pretrained=True)


def test_commands_know_the_tags(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Path(__file__).parents[1] / 'docs' / 'samples' / 'coat_17.png'
    assert 'coat' in run_cli(capsys, 'predict', NAME, picture)
    for command in ('path', 'remove', 'import'):
        said = fail_cli(capsys, 'weights', command, NAME)
        assert f'{NAME} has no file of its own: it starts from the weights of the plain net' in said


@pytest.mark.parametrize('place', ['inference mode', 'another default device'])
def test_where_the_start_is_computed_does_not_matter(place: str, plain: Any) -> None:
    with torch.inference_mode() if place == 'inference mode' else torch.device('meta'):
        model = timm.create_model(NAME, pretrained=True, device='cpu')
    assert_same_outputs(model, plain)


def test_all_layers_are_at_their_start() -> None:
    model = timm.create_model(f'{PLAIN}_se.from_fmnist', pretrained=True)
    assert not any(layer.fc2.weight.any() for layer in attention_layers(model).values())
