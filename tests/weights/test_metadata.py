"""What files say of their model and input: what they may, and what is refused wherever a file is read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import NAME, TENSORS, as_pth, in_config, written
from timm_attn.reports.net import load_net
from timm_attn.training.validate import validate
from timm_attn.weights.metadata import MODEL, model_metadata
from timm_attn.weights.publish import prepare
from timm_attn.weights.read import read_checkpoint

# What a file could reach by timm's builder, by ours or by timm's reader of config.json, and must not.
FORBIDDEN: dict[str, Any] = {
    'pretrained': True,
    'pretrained_cfg': 'fmnist',
    'pretrained_cfg_overlay': {'url': 'http://127.0.0.1:1/x'},
    'pretrained_filter_fn': 'x',
    'pretrained_strict': False,
    'cache_dir': 'elsewhere',
    'checkpoint_path': '/etc/passwd',
    'feature_cfg': {},
    'features_only': True,
    'kwargs_filter': ['attn_kwargs'],
    'tag': 'fmnist',
    'device': 'meta',
    'scriptable': True,
    'block_args': {'x': 1},
    'no_such': 1,
}


READERS: dict[str, Callable[[Path, Path], Any]] = {
    'load_net': lambda file, folder: load_net(NAME, file),
    'validate': lambda file, folder: validate(NAME, folder, weights=file),
    'publish': lambda file, folder: prepare(file, NAME, 'org/x', folder / 'out', tag='x', license='MIT'),
}


@pytest.mark.parametrize('key', FORBIDDEN)
@pytest.mark.parametrize('write', [written, as_pth])
@pytest.mark.parametrize('reader', READERS)
def test_a_file_may_not_set_other_arguments(
    reader: str, write: Callable[..., Path], key: str, small: Path, tmp_path: Path
) -> None:
    file = write(tmp_path, dict(lr=0.1, model_kwargs={key: FORBIDDEN[key]}))
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match=f"{file.name} sets the model argument '{key}', which a file may not: it may"):
        READERS[reader](file, small)
    assert sorted(tmp_path.rglob('*')) == before and not (small / 'out').exists()


OF_TIMM = ('cache_dir', 'pretrained_cfg_overlay', 'scriptable', 'checkpoint_path')  # parameters of timm.create_model


@pytest.mark.parametrize('key', [key for key in FORBIDDEN if key not in OF_TIMM])
def test_a_config_may_not_either(key: str, tmp_path: Path) -> None:
    name = in_config(tmp_path, {key: FORBIDDEN[key]})
    for pretrained in (True, False):
        with pytest.raises(
            (ValueError, TypeError), match=f"sets the model argument '{key}'|multiple values for .*'{key}'"
        ):
            timm.create_model(name, pretrained=pretrained)


def test_a_config_cannot_switch_off_the_check_of_keys(tmp_path: Path) -> None:
    name = in_config(tmp_path, {})
    file = tmp_path / 'hub' / 'model.safetensors'
    tensors = {k: v for k, v in read_checkpoint(file).items() if not k.startswith('layer3')}
    save_file(tensors, file)
    with pytest.raises(RuntimeError, match='does not fit the model: missing .*layer3'):
        timm.create_model(name, pretrained=True)
    shutil.rmtree(tmp_path / 'hub')
    name = in_config(tmp_path, {'pretrained_strict': False})
    save_file(tensors, file)
    with pytest.raises(ValueError, match="config.json of .*hub sets the model argument 'pretrained_strict'"):
        timm.create_model(name, pretrained=True)


@pytest.mark.parametrize(
    'cfg, message',
    [
        ({'num_classes': 10**9}, r'has num_classes 1000000000, but it must be an integer of 0 \.\.\. 1,000,000'),
        ({'mean': 'x'}, "has mean 'x', but it must be a list of numbers"),
        ({'input_size': [3, -1, 2]}, r'has input_size \(3, -1, 2\), but it must be three integers'),
        ({'label_names': 5}, 'has class names 5, but it must be a list of printable texts'),
    ],
)
def test_the_cfg_of_a_config(cfg: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f'The config.json of .*hub {message}'):
        timm.create_model(in_config(tmp_path, {}, **cfg), pretrained=True)


@pytest.mark.parametrize('suffix', ['float', 'int', 'nan'])
def test_the_weights_beside_a_config(suffix: str, tmp_path: Path) -> None:
    name = in_config(tmp_path, {})
    file = tmp_path / 'hub' / 'model.safetensors'
    tensors = dict(read_checkpoint(file))
    if suffix == 'int':
        tensors['fc.weight'] = tensors['fc.weight'].to(torch.int8)
    if suffix == 'nan':
        tensors['layer1.0.conv1.weight'] = (
            tensors['layer1.0.conv1.weight'].clone().index_fill_(0, torch.tensor(3), torch.nan)
        )
    save_file(tensors, file)
    if suffix == 'float':
        assert timm.create_model(name, pretrained=True).num_classes == 10
        return
    with pytest.raises(
        RuntimeError, match='fc.weight is torch.int8, but must be|conv1.weight has values that are not fin'
    ):
        timm.create_model(name, pretrained=True)


@pytest.mark.parametrize(
    'said, message',
    [
        (dict(options={'class_names': 5}), 'has class names 5, but it must be a list of printable texts'),
        (dict(options={'class_names': [1, 2]}), r'has class names \[1, 2\], but it must be a list of printable texts'),
        (dict(options=[1]), r'The options in .* must be a mapping of keys to values, but is \[1\]'),
        (dict(recipe=[1]), r'The recipe in .* must be a mapping of keys to values, but is \[1\]'),
        (dict(recipe={'model_kwargs': [1]}), r'has model_kwargs \[1\], but it must be a mapping'),
        (dict(recipe={'model_kwargs': {'attn_kwargs': [1]}}), r'has attn_kwargs \[1\], but it must be a mapping of na'),
        (
            dict(recipe={'model_kwargs': {'attn_kwargs': {'reduction': {}}}}),
            "has attn_kwargs {'reduction': {}}, but it",
        ),
        (dict(recipe={'model_kwargs': {'attn_kwargs': {'no_such': 1}}}), "has no option 'no_such'"),
        (dict(recipe={'gp': 'nonsense'}), "does not fit .* with {'global_pool': 'nonsense'}"),
        (dict(recipe={'gp': 5}), 'has global_pool 5, but it must be a text'),
        (dict(recipe={'bn_eps': 'x'}), "has bn_eps 'x', but it must be a number of 0 ... 1"),
        (dict(recipe={'bn_eps': float('nan')}), 'has bn_eps nan, but it must be a number of 0 ... 1'),
        (dict(recipe={'model_kwargs': {'act_layer': 'nonsense'}}), "does not fit .* with {'act_layer': 'nonsense'}"),
        (dict(recipe={'input_size': 'abc'}), "has input_size 'abc', but it must be three integers"),
        (
            dict(recipe={'input_size': [3, 10**6, 2]}),
            'but it must be three integers, the channels of 1 ... 512, height and width',
        ),
        (
            dict(recipe={'input_size': [1, 32, 32]}),
            r'says input_size \(1, 32, 32\), but its first convolution takes 3 ch',
        ),
        (dict(recipe={'mean': [0.1, 0.2]}), r'says mean \[0.1, 0.2\], but its first convolution takes 3 channels'),
        (dict(recipe={'std': [0.0]}), r'has std \[0.0\], but it must be a list of positive numbers'),
        (dict(recipe={'interpolation': 'nonsense'}), "has interpolation 'nonsense', but it must be one of nearest"),
        (dict(recipe={'crop_pct': 'x'}), "has crop_pct 'x', but it must be a number of 0.1 ... 4"),
        (dict(tensors={**TENSORS, 'fc.weight': torch.tensor(1.0)}), r'fc.weight has shape \(\) instead of'),
        (dict(tensors={**TENSORS, 'conv1.weight': torch.zeros(16)}), r'conv1.weight has shape \(16,\) instead of'),
        (dict(tensors={**TENSORS, 'fc.bias': torch.full((10,), torch.inf)}), 'fc.bias has values that are not finite'),
        *(
            (
                dict(tensors={k: v.to(dtype) if v.is_floating_point() else v for k, v in TENSORS.items()}),
                f'is {dtype}, but',
            )
            for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)
        ),
    ],
)
def test_one_line_for_each_thing_that_cannot_be(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = written(tmp_path, **{'recipe': {}, **said})
    with pytest.raises(ValueError, match=message) as error:
        load_net(NAME, file)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('depth', [10, 100_000])
def test_metadata_that_is_nested_deeply(depth: int, tmp_path: Path) -> None:
    nested = '[' * depth + ']' * depth
    save_file(TENSORS, tmp_path / 'x.safetensors', dict(arch=NAME, recipe=f'{{"mean": {nested}}}', options='{}'))
    with pytest.raises(ValueError, match='has mean|has metadata that this runner did not write'):
        load_net(NAME, tmp_path / 'x.safetensors')


def test_options_that_would_build_a_giant_are_not_built(tmp_path: Path) -> None:
    name = 'cifar_resnet20_cbam'
    model = timm.create_model(name)
    recipe = {'model_kwargs': {'attn_kwargs': {'kernel_size': 100_001}}}
    torch.save({'state_dict': model.state_dict(), 'recipe': recipe}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'does not fit .*: the model has 180,\d{3},\d{3},\d{3} values, the file'):
        load_net(name, tmp_path / 'x.pth')


def test_what_the_user_says_too_a_file_may_say(small: Path, tmp_path: Path) -> None:
    """An argument outside of the allow-list reaches the model where it stands in the user's own recipe."""
    from timm_attn.training.recipe import recipe_of

    kwargs = {'block_reduce_first': 1, 'down_kernel_size': 1, 'replace_stem_pool': False}
    assert set(kwargs) <= set(MODEL)
    said = {'no_such': [1, 2]}
    assert model_metadata(said, 'x', also=said) == said
    with pytest.raises(ValueError, match="sets the model argument 'no_such'"):
        model_metadata(said, 'x', also={'no_such': [1, 3]})
    file = written(tmp_path, dict(lr=0.1, model_kwargs=said))
    with pytest.raises(ValueError, match="does not fit .*: .*'no_such'"):  # the model does not take it
        validate(NAME, small, weights=file, recipe=recipe_of(dict(lr=0.1, model_kwargs=said), 'mine'))


def test_the_users_data_and_modules_are_not_a_files_to_name(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / 'some_module.py').write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    said = dict(
        lr=0.1, dataset='torch/cifar10', dataset_download=True, class_map='/etc/passwd', device='cuda:7',
        device_modules=['some_module'], workers=500, batch_size=10**6,
    )  # fmt: skip
    tensors = timm.create_model(NAME, num_classes=2).state_dict()
    assert validate(NAME, small, weights=written(tmp_path, said, tensors))['images'] == 20
    line = (
        'says dataset=torch/cifar10, dataset_download=True, class_map=/etc/passwd, which only your own recipe may say'
    )
    assert [line in record.message for record in caplog.records if record.name.endswith('validate')] == [True]
    with pytest.raises(
        ValueError, match='The recipe in .*x.safetensors has keys that the runner does not know: no_such'
    ):
        validate(NAME, small, weights=written(tmp_path, dict(no_such=1), tensors))


def test_the_allow_list_has_what_our_nets_take(tmp_path: Path) -> None:
    """What timm writes into the config.json of a copy is read again."""
    said = dict(
        attn_kwargs={'reduction': 4}, num_classes=7, in_chans=1, global_pool='max', drop_rate=0.1, zero_init_last=False,
        output_stride=16, stem_type='deep', stem_width=16, avg_down=True, act_layer='gelu', drop_path_rate=0.1,
    )  # fmt: skip
    model = timm.create_model('resnet18_se', **said)
    timm.models.save_for_hf(model, str(tmp_path / 'hub'), safe_serialization=True)
    copy = timm.create_model(f'local-dir:{tmp_path / "hub"}', pretrained=True)
    x = torch.randn(1, 1, 64, 64)
    assert torch.equal(model.eval()(x), copy.eval()(x)) and copy.layer1[0].se.fc1.out_features == 16
    assert set(said) <= set(MODEL)
