"""What a file says beside its weights: tensors, bits, its model, its input and its classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.support.checkpoints import NAME, TENSORS, written
from timm_attn.reports.net import load_net
from timm_attn.reports.predict import predict
from timm_attn.weights.metadata import INPUT, MODEL, input_metadata, model_metadata
from timm_attn.weights.read import read_checkpoint


def test_suffixes_in_capitals_and_halved_counters(tmp_path: Path) -> None:
    tensors = timm.create_model(NAME).half().state_dict()
    tensors = {k: v.half() for k, v in tensors.items()}
    path = tmp_path / 'A.SAFETENSORS'
    save_file(tensors, path)
    assert load_net(NAME, path).model.fc.weight.dtype == torch.float32


def _expanded() -> torch.Tensor:
    return torch.zeros(1, 1).expand(1_000_000, 64)


@pytest.mark.parametrize(
    'tensor, message',
    [
        (_expanded, r'has a tensor of shape \(1000000, 64\), of which it holds only 4 bytes'),
        (lambda: torch.zeros(19).as_strided((10, 10), (1, 1)), r'of shape \(10, 10\), of which it holds only 76 bytes'),
        (lambda: torch.eye(3).to_sparse(), r'has a tensor that is not a plain one \(torch.sparse_coo, cpu\)'),
        (lambda: torch.zeros(3, device='meta'), r'has a tensor that is not a plain one \(torch.strided, meta\)'),
    ],
)
@pytest.mark.parametrize('inside', [lambda t: t, lambda t: {'a': [1, (t,)]}])
def test_tensors_that_are_not_what_they_seem(
    tensor: Callable[[], torch.Tensor], inside: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    torch.save({'state_dict': {'x': torch.zeros(1)}, 'y': inside(tensor())}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / 'x.pth')


def test_flipped_bits(tmp_path: Path) -> None:
    """Every member of torch's archive has a CRC-32; a script may have switched them off."""
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.arange(1.0, 5.0)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(1.0, 5.0).numpy().tobytes())
    for bit in (0, 31):
        changed = bytearray(content)
        changed[place + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match='x.pth is damaged: the bytes of x/data/0 are not those that were written'):
            read_checkpoint(path)
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'a': torch.ones(1)}, path)
    finally:
        torch.serialization.set_crc32_options(computed)
    assert read_checkpoint(path)['a'] == 1


@pytest.mark.parametrize('rules', [MODEL, INPUT])
@pytest.mark.parametrize(
    'value', [object(), {'a': object()}, [object()], torch.zeros(3), [torch.zeros(3)], 1j, b'x' * 99]
)
def test_no_value_is_an_exception_of_another_kind(rules: Any, value: Any) -> None:
    check = model_metadata if rules is MODEL else input_metadata
    for key in rules:
        with pytest.raises(ValueError, match=f'x has {key} .*, but it must be '):
            check({key: value}, 'x')


def test_a_grey_net_whose_file_says_no_mean(tmp_path: Path) -> None:
    tensors = timm.create_model(NAME, in_chans=1).state_dict()
    net = load_net(NAME, written(tmp_path, {'input_size': [1, 32, 32]}, tensors))
    assert net.prepare(Image.new('RGB', (40, 50))).shape == (1, 1, 32, 32) and len(net.data_config['mean']) == 1


def test_a_file_names_its_model(tmp_path: Path) -> None:
    assert load_net(None, written(tmp_path, {})).name == NAME
    save_file(TENSORS, tmp_path / 'bare.safetensors')
    with pytest.raises(ValueError, match='bare.safetensors does not say which model it is of: name it with --model'):
        load_net(None, tmp_path / 'bare.safetensors')
    with pytest.raises(ValueError, match='Name a model, or a checkpoint that says which model it is of'):
        load_net(None)


def test_a_picture_is_shown_by_a_file_that_says_nothing_odd(tmp_path: Path) -> None:
    recipe = {'input_size': [3, 16, 16], 'interpolation': 'bicubic', 'crop_pct': 1.15, 'mean': [0.5]}
    net = load_net(NAME, written(tmp_path, recipe, options={'class_names': list('abcdefghij')}))
    assert net.data_config['mean'] == (0.5,) * 3 and net.labels == list('abcdefghij')
    net.ranked(net.probabilities(net.prepare(Image.new('RGB', (40, 50)))))


def test_the_names_of_the_classes_follow_the_checkpoint(tmp_path: Path) -> None:
    cfg: Any = timm.create_model(NAME, pretrained=True).pretrained_cfg
    assert len(cfg['label_names']) == 10
    for others in (
        timm.create_model(NAME, pretrained=True, num_classes=3),
        timm.create_model(NAME, pretrained=True, num_classes=0),
        timm.create_model(NAME, pretrained=True, features_only=True),
        timm.create_model(NAME),
        load_net(NAME, written(tmp_path, {})).model,
    ):
        assert 'label_names' not in others.pretrained_cfg
    own = timm.create_model(NAME, num_classes=2, pretrained_cfg_overlay=dict(label_names=('a', 'b')))
    assert own.pretrained_cfg['label_names'] == ('a', 'b')


def test_the_names_of_the_classes_go_to_the_hub_and_back(tmp_path: Path) -> None:
    names = ['cat', 'dog', 'fox']
    state = timm.create_model(NAME, num_classes=3).state_dict()
    net = load_net(NAME, written(tmp_path, {}, tensors=state, options=dict(class_names=names)))
    assert list(net.model.pretrained_cfg['label_names']) == names == net.labels
    timm.models.save_for_hf(net.model, str(tmp_path / 'hub'), safe_serialization=True)
    model = timm.create_model(f'local-dir:{tmp_path / "hub"}', pretrained=True)
    assert list(model.pretrained_cfg['label_names']) == names
    torch.testing.assert_close(dict(model.state_dict()), dict(state))
    loaded = load_net(f'local-dir:{tmp_path / "hub"}')
    picture = tmp_path / 'picture.png'
    Image.new('RGB', (28, 28)).save(picture)
    ((_, classes),) = predict(loaded, [picture])
    assert {label for label, _ in classes} == set(names)
