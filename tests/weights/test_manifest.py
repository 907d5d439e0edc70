"""The manifest against the registry and the files, and loading through timm's own call."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from timm_attn import zoo
from timm_attn.from_tags import PREFIX
from timm_attn.weights import checkpoints, find_checkpoint, manifest, verified_path
from timm_attn.weights.store import file_digest, stored_path

ALL = [c.full_name for c in checkpoints() if c.kind == 'bundled']
NAME = 'cifar_resnet20_simam'
every_checkpoint = pytest.mark.parametrize('full_name', ALL)


def checkpoint_of(full_name: str) -> manifest.Checkpoint:
    return find_checkpoint(*full_name.split('.'))


def test_manifest_and_registry_agree() -> None:
    ours = [name for name in timm.list_models(module='zoo', pretrained=True) if f'.{PREFIX}' not in name]
    assert ALL and set(ours) == {name for c in checkpoints() for name in (c.name, c.full_name)}
    for c in checkpoints():
        cfg = timm.get_pretrained_cfg(c.full_name, allow_unregistered=False)
        assert cfg is not None and cfg.num_classes == c.cfg['num_classes'] and cfg.has_weights
        assert cfg.license == (c.license.lower() if c.license else None)
    tags = {
        (name, cfg) for name in zoo.names() for cfg in zoo.default_cfgs[name].cfgs if cfg and not cfg.startswith(PREFIX)
    }
    assert tags == {(c.name, c.tag) for c in checkpoints()}
    files = {p.name for p in manifest.bundled_dir().iterdir()}
    assert files == {c.file for c in checkpoints() if c.kind == 'bundled'}


@every_checkpoint
def test_a_record_is_what_the_file_is(full_name: str) -> None:
    checkpoint = checkpoint_of(full_name)
    path = stored_path(checkpoint)
    assert (path.stat().st_size, file_digest(path)) == (checkpoint.size, checkpoint.sha256)
    model = timm.create_model(full_name)
    assert sum(p.numel() for p in model.parameters()) == checkpoint.num_params
    assert {k: v.shape for k, v in load_file(path).items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert {m['split'] for m in checkpoint.metrics} == {'test', 'test, bundled part'}


@every_checkpoint
def test_loads_every_value(full_name: str) -> None:
    model = timm.create_model(full_name, pretrained=True)
    saved = load_file(stored_path(checkpoint_of(full_name)))
    assert all(torch.equal(v, saved[k]) for k, v in model.state_dict().items())
    assert model.default_cfg['input_size'] == (3, 28, 28)


def test_default_tag_new_head_other_channels_and_features() -> None:
    default = timm.create_model(NAME, pretrained=True)
    x = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(default.eval()(x), timm.create_model(f'{NAME}.fmnist', pretrained=True).eval()(x))
    assert timm.create_model(NAME, pretrained=True, num_classes=3).eval()(x).shape == (2, 3)
    gray = timm.create_model(NAME, pretrained=True, in_chans=1)
    torch.testing.assert_close(gray.conv1.weight, default.conv1.weight.sum(1, keepdim=True))
    features = timm.create_model(NAME, pretrained=True, features_only=True).eval()(x)
    expected = default.forward_intermediates(x, intermediates_only=True)
    assert [f.shape[1] for f in features] == [16, 16, 32, 64]
    torch.testing.assert_close(features, expected)


def test_a_source_of_the_callers_own(tmp_path: Path) -> None:
    plain = timm.create_model('resnet18')
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    overlay = dict(file=str(tmp_path / 'plain.pth'))
    model = timm.create_model('resnet18_simam', pretrained=True, pretrained_cfg_overlay=overlay)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('source', [{'url': 'https://127.0.0.1:9/none.pth'}, {'hf_hub_id': 'nobody/nothing'}])
def test_another_source_is_not_replaced_by_the_bundled_file(source: dict[str, str]) -> None:
    with pytest.raises((OSError, RuntimeError), match='refused|offline mode|locate the file|Connection'):
        timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=source)


@pytest.mark.parametrize(
    'name, message',
    [
        ('resnet50_srm', r'No pretrained weights exist for resnet50_srm: .*`timm-attn weights list`'),
        ('resnet50_bam', r'for resnet50_bam: .* shows, such as resnet50_bam_mul, .*resnet50_simam\.$'),
        ('cifar_wrn28_8_se', r'for cifar_wrn28_8_se: .* `timm-attn weights list` shows\.$'),
        ('resnet50_srm.tag', r'Invalid pretrained tag \(tag\) for resnet50_srm: its tags are from_a1_in1k, '),
        ('cifar_wrn28_8_srm.tag', r'Invalid pretrained tag \(tag\) for cifar_wrn28_8_srm: its tags are none'),
        (
            'resnet50_simam',
            r'are not here, and HF_HUB_OFFLINE is set: .* or download https://.* and run .*FILE`',
        ),
        ('resnet50_eca', r'`timm-attn weights import resnet50_eca.authors_in1k FILE`\.$'),
        (f'{NAME}.tag', r'Invalid pretrained tag \(tag\) for cifar_resnet20_simam: its tags are fmnist'),
    ],
)
def test_there_is_no_such_checkpoint(name: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        timm.create_model(name, pretrained=True)


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    'damage, message',
    [
        (_flip_a_byte, 'have sha256 .* the file is damaged'),
        (lambda file: file.write_bytes(file.read_bytes()[:-10]), 'bytes instead of .* the file is damaged'),
        (lambda file: file.unlink(), 'are missing at'),
    ],
    ids=['byte', 'cut', 'gone'],
)
@pytest.mark.parametrize('by_cfg', [False, True], ids=['by name', 'by cfg'])
def test_a_damaged_file_is_an_error(
    damage: Callable[[Path], None], message: str, by_cfg: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = find_checkpoint(NAME)
    cfg = timm.get_pretrained_cfg(NAME)  # scripts of timm hand a whole cfg, with our file in it, to create_model
    copy = tmp_path / 'weights' / 'bundled' / checkpoint.file
    copy.parent.mkdir(parents=True)
    shutil.copy(stored_path(checkpoint), copy)
    monkeypatch.setattr(manifest, 'PACKAGE', tmp_path)
    cfg.file = str(copy)
    assert verified_path(checkpoint) == copy
    damage(copy)
    with pytest.raises(RuntimeError, match=message):
        timm.create_model(NAME, pretrained=True, **({'pretrained_cfg': cfg} if by_cfg else {}))


def test_a_checkpoint_of_other_keys_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm loads with strict=False for a new head: a file that lacks keys would load silently."""
    state = load_file(stored_path(find_checkpoint(NAME)))
    del state['layer3.1.conv1.weight']
    folder = tmp_path / 'weights' / 'bundled'
    folder.mkdir(parents=True)
    save_file(state, folder / 'short.safetensors')
    monkeypatch.setattr(manifest, 'PACKAGE', tmp_path)
    short = replace(
        find_checkpoint(NAME),
        file='short.safetensors',
        size=(folder / 'short.safetensors').stat().st_size,
        sha256=file_digest(folder / 'short.safetensors'),
    )
    monkeypatch.setattr(manifest, 'checkpoints', lambda: (short,))
    with pytest.raises(RuntimeError, match=r"does not fit the model: missing \['layer3.1.conv1.weight'\]"):
        timm.create_model(NAME, pretrained=True, num_classes=3)


def test_the_manifest_is_read_from_the_package_or_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = json.loads(manifest.manifest_path().read_text())
    assert root['schema_version'] == 1
    monkeypatch.setattr(manifest, 'PACKAGE', tmp_path / 'nowhere')
    with pytest.raises(RuntimeError, match='weights_manifest.json is neither in'):
        manifest.manifest_path()


NO_HUB = json.dumps(
    {'checkpoints': [{'name': 'resnet18_se', 'tag': 'x', 'kind': 'published', 'num_params': 1, 'cfg': {}}]}
)


@pytest.mark.parametrize('content', ['{', '{}', '{"checkpoints": [{"name": "x"}]}', NO_HUB])
def test_a_damaged_manifest(content: str, tmp_path: Path) -> None:
    """The nets are there, with a warning; what needs weights says in one line what is wrong."""
    shutil.copytree(manifest.PACKAGE, tmp_path / 'timm_attn', ignore=shutil.ignore_patterns('__pycache__', '*.json'))
    (tmp_path / 'timm_attn' / 'weights_manifest.json').write_text(content)
    code = "import timm, timm_attn.cli as cli; timm.create_model('resnet18_se'); raise SystemExit(cli.main(['demo']))"
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert re.search(r'^timm-attn: .*weights_manifest.json is damaged .*: reinstall timm_attn.$', run.stderr, re.M)


UPSTREAM: dict[str, Any] = {
    'name': 'resnet18_se', 'tag': 'x', 'kind': 'upstream', 'num_params': 1, 'cfg': {'num_classes': 10}, 'license': None,
    'origin': {'repository': 'https://x', 'url': 'https://x/y'}, 'metrics': [],
}  # fmt: skip
WRONG_FIELDS: dict[str, Any] = {
    'name': [['x'], 'X', None],
    'kind': ['other', ['upstream'], 'mirrored', 'timm', 'published', 'bundled'],
    'num_params': [0, 1.5, True, '1', None, float('inf')],
    'size': [-1, 1.5, float('inf'), [1]],
    'cfg': [[], 5, {}, {'num_classes': '10'}, {'num_classes': 10, 'mean': 'x'}],
    'hub': [5, {'id': 'a/b'}, {'id': 'a/b', 'revision': 'b' * 40}],
    'origin': [
        5,
        {},
        {'repository': 'https://x'},
        {'repository': 1, 'url': 'https://x/y'},
        *({'repository': 'https://x', 'url': url} for url in ('http://x/y', 'file:///x', 5)),
        {'repository': 'https://x', 'url': 'https://x/y', 'sha1': 'a'},
    ],
    'model_args': [[1], 'x', {'cache_dir': 'x'}, {'attn_kwargs': 5}],
    'metrics': [5, [5], [{}], [{'dataset': 'x', 'status': 'claimed', 'top1': '77'}]],
    'training': [[1], 'x'],
    'unknown': [1],
}


@pytest.mark.parametrize('name, value', [(name, value) for name, values in WRONG_FIELDS.items() for value in values])
def test_a_damaged_record(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found when the manifest is read, not where the field is used."""
    monkeypatch.setattr(manifest, 'PACKAGE', tmp_path)
    for record in (UPSTREAM, {**UPSTREAM, name: value}):
        (tmp_path / 'weights_manifest.json').write_text(json.dumps({'checkpoints': [record]}))
        if record is UPSTREAM:
            assert len(manifest.checkpoints.__wrapped__()) == 1
    with pytest.raises(RuntimeError, match=r'weights_manifest.json is damaged .*: reinstall timm_attn'):
        manifest.checkpoints.__wrapped__()


def test_a_manifest_that_is_nested_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, 'PACKAGE', tmp_path)
    (tmp_path / 'weights_manifest.json').write_text('[' * 100_000)
    with pytest.raises(RuntimeError, match=r'weights_manifest.json is damaged .*: reinstall timm_attn'):
        manifest.checkpoints.__wrapped__()


def test_an_unreadable_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'read_text', refuse)
    with pytest.raises(RuntimeError, match=r'weights_manifest.json cannot be read \(Permission denied\)'):
        manifest.checkpoints.__wrapped__()
