"""Fetched files in the store: damage, links, no room, several at once, a kill; files of the caller."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from tests.support.hub_server import LocalHub
from tests.support.published import NAME, REPO, TAG, folder_is_clean, model
from tests.support.records import registered
from timm_attn import weights
from timm_attn.weights import store
from timm_attn.weights.inventory import is_present, remove
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import stored_path


@pytest.mark.parametrize('damage', [lambda c: c[:-5], lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b''])
def test_a_damaged_cache_heals(damage: Callable[[bytes], bytes], checkpoint: Checkpoint, content: bytes) -> None:
    model()
    path = stored_path(checkpoint)
    path.write_bytes(damage(content))
    model()
    assert path.read_bytes() == content and folder_is_clean()


def test_a_damaged_cache_offline(
    checkpoint: Checkpoint, content: bytes, monkeypatch: pytest.MonkeyPatch, hub: LocalHub
) -> None:
    model()
    stored_path(checkpoint).write_bytes(content[:-1] + b'x')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(RuntimeError, match=r'damaged.*HF_HUB_OFFLINE is set'):
        model()


def test_a_symlink_in_the_cache_is_verified_and_replaced(
    checkpoint: Checkpoint, content: bytes, tmp_path: Path
) -> None:
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    path = stored_path(checkpoint)
    path.parent.mkdir(parents=True)
    path.symlink_to(victim)
    model()
    assert victim.read_text() == 'mine' and not path.is_symlink() and path.read_bytes() == content


@pytest.mark.parametrize('call', ['mkstemp', 'write', 'replace'])
def test_no_room_or_no_right_to_write(
    call: str, checkpoint: Checkpoint, content: bytes, monkeypatch: pytest.MonkeyPatch, hub: LocalHub
) -> None:
    """What the system says of a full disk or a read-only folder; a warm cache needs neither."""
    code = errno.ENOSPC if call == 'write' else errno.EROFS

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if call == 'mkstemp':
            patch.setattr('tempfile.mkstemp', fail)
        elif call == 'replace':
            patch.setattr('os.replace', fail)
        else:
            patch.setattr('timm_attn.weights.fetch.tqdm.update', fail)
        with pytest.raises(OSError, match=r'cannot be written to .*(No space|Read-only).*TIMM_ATTN_HOME') as error:
            model()
        assert error.value.errno == code
    assert folder_is_clean() and not is_present(checkpoint)
    model()
    asked = len(hub.requests)
    with monkeypatch.context() as patch:
        patch.setattr('tempfile.mkstemp', fail)
        model()
    assert len(hub.requests) == asked


def test_several_at_once(checkpoint: Checkpoint, content: bytes) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(weights.verified_path(checkpoint))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [stored_path(checkpoint)] * 6 and paths[0].read_bytes() == content and folder_is_clean()


def test_two_files_of_one_name(checkpoint: Checkpoint, hub: LocalHub, content: bytes) -> None:
    """Every repository calls its file model.safetensors; even a record of the same tag does not find another's."""
    other = content[:-1] + bytes([content[-1] ^ 1])
    location = {**checkpoint.hub, 'id': 'org/other', 'revision': hub.add('org/other', {'model.safetensors': other})}
    paths = {
        weights.verified_path(record)
        for record in (checkpoint, replace(checkpoint, hub=location, sha256=hashlib.sha256(other).hexdigest()))
    }
    assert {path.read_bytes() for path in paths} == {content, other}


def test_a_killed_download_leaves_nothing_that_counts(
    checkpoint: Checkpoint, hub: LocalHub, content: bytes, tmp_path: Path
) -> None:
    """A process that is killed while it writes leaves a partial file: no other process takes it for the whole one."""
    folder = store.store_dir()
    folder.mkdir(parents=True)
    code = (
        'import os, sys, pathlib; from timm_attn.files import replacing\n'
        'with replacing(pathlib.Path(sys.argv[1])) as out:\n'
        '    out.write(b"half"); out.flush(); os.kill(os.getpid(), 9)'
    )
    killed = subprocess.run([sys.executable, '-c', code, str(stored_path(checkpoint))])
    (partial,) = folder.iterdir()
    assert killed.returncode == -9 and partial.name.endswith('.partial')
    model()
    assert stored_path(checkpoint).read_bytes() == content and partial.exists()  # it may be another's, still at work
    earlier = folder / f'{NAME}.{TAG}-{"0" * 16}.safetensors'  # of another release of this package, which may need it
    other = folder / f'.resnet18_se.x-{"0" * 16}.safetensors.ab12cd34.partial'
    for path in (partial, earlier, other):
        path.touch()
        os.utime(path, (time.time() - 4000,) * 2)
    remove(f'{NAME}.{TAG}')
    assert not list(folder.iterdir())
    for path in (earlier, other):
        path.touch()
        os.utime(path, (time.time() - 4000,) * 2)
    model()
    assert earlier.exists() and not other.exists()


def test_names_of_a_hub_that_the_manifest_does_not_have(
    checkpoint: Checkpoint, hub: LocalHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    timm.models.save_for_hf(model(), str(tmp_path / 'copy'), safe_serialization=True)
    with caplog.at_level('WARNING', 'timm_attn'):
        timm.create_model(f'local-dir:{tmp_path / "copy"}', pretrained=True)
    assert 'is not in the manifest of timm_attn: its weights are loaded unverified' in caplog.text


@pytest.mark.parametrize('options', [dict(num_classes=5), dict(num_classes=0), dict(features_only=True)])
@pytest.mark.parametrize('by_folder', [True, False], ids=['local-dir', 'overlay'])
def test_a_file_of_the_callers_own_has_the_keys(by_folder: bool, options: dict[str, Any], tmp_path: Path) -> None:
    """timm takes any keys as soon as the head differs: one unrelated tensor would load silently."""
    timm.models.save_for_hf(timm.create_model(NAME), str(tmp_path), safe_serialization=True)
    file = tmp_path / 'model.safetensors'
    own = (
        {'model_name': f'local-dir:{tmp_path}'}
        if by_folder
        else dict(model_name=NAME, pretrained_cfg_overlay={'file': str(file)})
    )
    timm.create_model(**own, pretrained=True, **options)
    file.write_bytes(save({'unrelated': torch.ones(1)}))
    with pytest.raises(
        RuntimeError, match=r"does not fit .*\['unrelated'\]\. timm_attn.convert_state_dict takes files"
    ):
        timm.create_model(**own, pretrained=True, **options)
    timm.create_model(**own, pretrained=True, pretrained_strict=False)  # who asks for it gets timm's way


def test_a_record_says_what_it_was_trained_with(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading the tag applies it, a contradiction is an error, and a copy for the hub keeps it."""
    narrow = save(timm.create_model(NAME, attn_kwargs=dict(reduction=4)).state_dict(), metadata={'format': 'pt'})
    location = {'id': REPO, 'revision': hub.add(REPO, {'m.safetensors': narrow}), 'filename': 'm.safetensors'}
    record = Checkpoint(
        NAME, TAG, 'published', 1, dict(num_classes=10), None, len(narrow), hashlib.sha256(narrow).hexdigest(),
        hub=location, model_args={'attn_kwargs': {'reduction': 4}},
    )  # fmt: skip
    with registered(monkeypatch, record):
        trained = model()
        assert trained.layer1[0].block_attn.fc1.out_features == 4
        assert timm.create_model(NAME, pretrained=True, attn_kwargs=dict(reduction=4)) is not None
        with pytest.raises(
            ValueError, match='trained with reduction=4 of Squeeze-and-Excitation, but 16 was asked for'
        ):
            timm.create_model(NAME, pretrained=True, attn_kwargs=dict(reduction=16))
        assert timm.create_model(NAME, attn_kwargs=dict(reduction=16)) is not None
        timm.models.save_for_hf(trained, str(tmp_path / 'copy'), safe_serialization=True)
        config = json.loads((tmp_path / 'copy' / 'config.json').read_text())
        assert config['model_args']['attn_kwargs'] == {'reduction': 4}
        copy = timm.create_model(f'local-dir:{tmp_path / "copy"}', pretrained=True)
        assert copy.layer1[0].block_attn.fc1.out_features == 4
        with pytest.raises(ValueError, match='trained with reduction=4'):
            timm.create_model(f'local-dir:{tmp_path / "copy"}', pretrained=True, attn_kwargs=dict(reduction=16))
