"""Files that contradict themselves, or make much of little: a wrong model is never built from them, nor a large one."""

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import timm_attn
from tests.support.checkpoints import NAME, TENSORS, in_config, written
from timm_attn.images import read_image
from timm_attn.reports.net import load_net
from timm_attn.training.validate import validate
from timm_attn.weights.importing import import_checkpoint
from timm_attn.weights.read import read_checkpoint
from timm_attn.weights.trained import model_in


@pytest.mark.parametrize(
    'cfg, model_args, message',
    [
        ({'classifier': ['layer1.0.conv1', 'fc']}, {}, r"has classifier .*, but the model has 'fc'"),
        ({'first_conv': 'layer1.0.conv1'}, {}, "has first_conv layer1.0.conv1, but the model has 'conv1'"),
        ({'label_offset': 1}, {}, 'has label_offset 1, but the model has None'),
        ({'custom_load': True}, {}, 'has custom_load True, but the model has None'),
        ({'num_classes': 5}, {}, 'contradicts itself: num_classes is 10 and 5'),
        ({}, {'num_classes': 5}, 'contradicts itself: num_classes is 5 and 10'),
        ({}, {'num_classes': 0}, 'contradicts itself: num_classes is 0 and 10'),
        (
            {'num_classes': 900_000},
            {'num_classes': 900_000},
            r'builds a model of 58,\d{3},\d{3} values, more than the 30',
        ),
        ({}, {'stem_width': 64}, 'does not describe a cifar_resnet20_se'),
        ({}, {'global_pool': 'xx'}, 'does not describe a cifar_resnet20_se'),
    ],
)
def test_a_config_that_contradicts_its_model(cfg: Any, model_args: Any, message: str, tmp_path: Path) -> None:
    name = in_config(tmp_path, model_args, **cfg)
    with pytest.raises(ValueError, match=f'The config.json of .*hub {message}'):
        timm.create_model(name, pretrained=True)


def test_a_config_whose_head_is_of_other_classes(tmp_path: Path) -> None:
    name = in_config(tmp_path, {'num_classes': 7}, num_classes=7)  # the file has 10
    with pytest.raises(RuntimeError, match='does not fit its description: 10 classes instead of 7'):
        timm.create_model(name, pretrained=True)
    assert timm.create_model(in_config(tmp_path / 'b', {}), pretrained=True, num_classes=7).num_classes == 7


def test_a_bin_beside_a_config_is_checked(tmp_path: Path) -> None:
    name = in_config(tmp_path, {})
    file = tmp_path / 'hub' / 'model.safetensors'
    tensors = dict(read_checkpoint(file))
    file.unlink()
    torch.save({**tensors, 'fc.weight': torch.zeros(1).expand(10, 64)}, tmp_path / 'hub' / 'pytorch_model.bin')
    with pytest.raises(ValueError, match='pytorch_model.bin has a tensor of shape .10, 64., of which it holds only 4'):
        timm.create_model(name, pretrained=True)


def _with(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**TENSORS, **changes}


@pytest.mark.parametrize(
    'content, message',
    [
        (_with(**{'linear.weight': TENSORS['fc.weight']}), 'has fc.weight twice, as fc.weight and as linear.weight'),
        (
            _with(**{'fc.bias': torch.full((10,), 1e300, dtype=torch.float64)}),
            'fc.bias has values that are not finite',
        ),
        (_with(**{'bn1.running_var': -torch.ones(16)}), 'bn1.running_var has values below 0, but is a variance'),
        ({'state_dict': TENSORS, 'model': TENSORS}, 'has state_dict and model, and which of them is meant'),
        ({'state_dict': [1]}, r'state_dict must map keys to tensors, but is \[1\]'),
        ({1: torch.zeros(1)}, 'maps texts to tensors, but 1 is Tensor'),
        (_with(**{'\x1b[31m' + 'x' * 9999: torch.zeros(1)}), r"such as '\\x1b\[31mxxx.*\.\.\.xxx"),
    ],
)
def test_state_dicts_that_are_not_one(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        timm_attn.convert_state_dict(content, NAME)
    assert len(str(error.value)) < 600 and str(error.value).isprintable()


def test_averaged_weights_that_are_none(tmp_path: Path) -> None:
    torch.save(
        {'state_dict': TENSORS, 'state_dict_ema': None, 'model_ema': _with(**{'fc.bias': torch.ones(10)})},
        tmp_path / 'x.pth',
    )
    assert load_net(NAME, tmp_path / 'x.pth').model.fc.bias[0] == 1


class _Called:
    """What a pickle says to make a tensor of that size."""

    def __init__(self, *size: int) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return torch.FloatTensor, self.size


def _called(path: Path) -> None:
    torch.save({**TENSORS, 'fc.weight': _Called(1_000_000, 64)}, path)


def _shared(path: Path) -> None:
    storage = torch.zeros(40_000)
    torch.save({k: storage[: v.numel()].view(v.shape) if v.dim() else v for k, v in TENSORS.items()}, path)


def _end_mark_cut(path: Path) -> None:
    whole = io.BytesIO()
    torch.save(TENSORS, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
    with path.open('ab') as file:
        file.write(b'PK\5\6\0\0\0\0')


@pytest.mark.parametrize(
    'make, message',
    [
        (_called, 'has tensors of 25.,...,... bytes, more than the file|more than tensors and plain values'),
        (_shared, r'the model has 27\d,\d{3} values, the file 27\d,\d{3} in 16\d,\d{3} bytes'),
        (_end_mark_cut, 'is a damaged archive: it has no readable list of members'),
    ],
)
def test_much_of_little(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=message):
        load_net(NAME, tmp_path / 'x.pth')


def test_a_split_is_the_users_to_name(small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that names another folder is measured on the validation split all the same."""
    tensors = timm.create_model(NAME, num_classes=2).state_dict()
    file = written(tmp_path, dict(lr=0.1, val_split=str(small / 'train'), input_size=[3, 1024, 1024]), tensors)
    os.rename(small / 'train', small / 'elsewhere')
    assert validate(NAME, small, weights=file, changes=dict(input_size=[3, 32, 32]))['images'] == 20
    assert 'says val_split=' in caplog.text


def test_outputs_that_are_not_finite(small: Path, tmp_path: Path) -> None:
    tensors = timm.create_model(NAME, num_classes=2).state_dict()
    tensors['fc.weight'] = torch.full_like(tensors['fc.weight'], 3e38)
    file = written(tmp_path, dict(lr=0.1), tensors)
    net = load_net(NAME, file)
    with pytest.raises(ValueError, match=f'{NAME} gives outputs that are not finite'):
        net.probabilities(net.prepare(Image.effect_noise((32, 32), 99)))
    with pytest.raises(ValueError, match='gives a loss of (nan|inf): its weights are damaged'):
        validate(NAME, small, weights=file)


def test_a_tag_has_its_own_input(tmp_path: Path) -> None:
    said = 'resnet18.tv_in1k'
    assert model_in({'arch': said}, 'file') == said == model_in({}, 'file', said) == model_in({'arch': said}, 'f', said)
    assert (
        model_in({'arch': 'resnet18.no_such'}, 'file')
        == model_in({'arch': 'resnet18.no_such'}, 'f', 'resnet18')
        == 'resnet18'
    )
    torch.save({'state_dict': timm.create_model('resnet18').state_dict(), 'arch': said}, tmp_path / 'x.pth')
    config = load_net(None, tmp_path / 'x.pth').data_config
    assert (config['interpolation'], config['crop_pct']) == ('bilinear', 0.875)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'x.png')
    with pytest.raises(ValueError, match='There is no image .*x.png'):
        read_image(tmp_path / 'x.png')
    with pytest.raises(FileNotFoundError, match='There is no file .*x.png'):
        import_checkpoint('resnet50_simam.authors_in1k', tmp_path / 'x.png', tmp_path / 'store')


@pytest.mark.parametrize(
    'kind, content', [(zipfile.ZIP_LZMA, b'\x09\x04\x05\x00' + bytes(99)), (zipfile.ZIP_BZIP2, b'BZh9' + bytes(99))]
)
def test_archives_of_other_compressions_that_are_damaged(kind: int, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w', kind) as archive:
        archive.writestr('x.pth', bytes(1000))
    raw = bytearray(path.read_bytes())
    start = 30 + len('x.pth')
    size = int.from_bytes(raw[18:22], 'little')
    raw[start : start + size] = (content * 9)[:size]
    path.write_bytes(raw)
    with pytest.raises(ValueError, match='x.zip is a damaged archive'):
        import_checkpoint('resnet50_simam.authors_in1k', path, tmp_path / 'store')


def test_images_beyond_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new('L', (40, 40)).save(tmp_path / 'x.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(ValueError, match='it has 40 x 40 pixels, more than 1,000'):
            read_image(tmp_path / 'x.png')


@pytest.mark.parametrize('names', [['a\nb'] * 10, ['\x1b[31m'] * 10, ['x' * 300] * 10, ['\udcff'] * 10])
def test_names_of_classes_are_printable(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='has class names .*, but it must be a list of printable texts'):
        load_net(NAME, written(tmp_path, {}, options={'class_names': names}))


@pytest.mark.parametrize('channels', [1, 2, 5])
def test_other_channels_without_a_word_of_them(channels: int, tmp_path: Path) -> None:
    save_file(timm.create_model(NAME, in_chans=channels).state_dict(), tmp_path / 'x.safetensors')
    assert load_net(NAME, tmp_path / 'x.safetensors').data_config['input_size'][0] == channels
