"""Files without a known digest: the authors' on Google Drive, through a stand-in for gdown, and timm's on the Hub."""

import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from tests.support.hub_server import LocalHub
from tests.support.records import registered
from timm_attn import weights
from timm_attn.weights import reach, verified_path
from timm_attn.weights.inventory import listing, remove
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import imported, record_path, store_dir, stored_path

NAME, TAG = 'cifar_preresnet20_simam', 'mine'
FOLDER = 'https://drive.google.com/drive/folders/1rRT0UCPeRLPdTCJvv43hvAnGnS49nIWn'
FILE = 'https://drive.google.com/open?id=1LMRFRTyzVifGBi2MUpTuYEWW44S8mwyl'


def authors_file(folder: Path, name: str = NAME, seed: int = 0) -> bytes:
    """As the SimAM repository saves it: a bn that is followed by the attention, in a wrapper of a parallel training."""
    torch.manual_seed(seed)
    state = {f'module.{k}': v for k, v in timm.create_model(name).state_dict().items()}
    torch.save({'state_dict': state, 'epoch': 100}, folder / 'x.pth')
    return (folder / 'x.pth').read_bytes()


class Drive(types.SimpleNamespace):
    """A stand-in for gdown: files by their address, and one folder of them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.asked: list[str] = []
        self.fault: Exception | None = None

    def download_folder(self, url: str, skip_download: bool, **options: Any) -> list[Any]:
        assert skip_download and url == FOLDER
        self.asked.append(url)
        self._answer(options)
        return [
            types.SimpleNamespace(id=i, path=path, local_path=f'/elsewhere/{path}') for i, path in self.names.items()
        ]

    def download(self, url: str, output: str, progress: Callable[[int, int | None], None], **options: Any) -> str:
        self.asked.append(url)
        self._answer(options)
        content = self.files[url]
        for end in range(100_000, len(content) + 100_000, 100_000):
            Path(output).write_bytes(content[:end])
            progress(min(end, len(content)), None)
        return output

    def _answer(self, options: dict[str, Any]) -> None:
        assert options == dict(quiet=True, use_cookies=False, timeout=8), 'no silence without end, no file in the home'
        if self.fault:
            raise self.fault

    def put(self, path: str, content: bytes) -> str:
        """A file of the folder; its address."""
        key = f'{len(self.names)}'.rjust(33, 'a')
        self.names[key] = path
        self.files[f'https://drive.google.com/uc?id={key}'] = content
        return f'https://drive.google.com/uc?id={key}'


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drive:
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
    drive = Drive()
    monkeypatch.setitem(sys.modules, 'gdown', drive)
    return drive


def record_at(url: str, license: str | None = None) -> Checkpoint:
    return Checkpoint(
        name=NAME,
        tag=TAG,
        kind='upstream',
        num_params=272_282,
        cfg=dict(num_classes=10, input_size=(3, 32, 32)),
        license=license,
        origin={'repository': 'https://github.com/authors/repository', 'url': url},
    )


@pytest.fixture
def checkpoint(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpoint]:
    record = record_at(FOLDER)
    with registered(monkeypatch, record):
        yield record


def model() -> Any:
    return timm.create_model(f'{NAME}.{TAG}', pretrained=True)


def test_the_file_of_a_folder_that_is_the_net(
    checkpoint: Checkpoint,
    drive: Drive,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among other nets, a page, a damaged file and one that is too large; the likeliest name is tried first."""
    content = authors_file(tmp_path)
    drive.put('readme.txt', b'<html>')
    drive.put('large.pth', bytes(16 * 272_282 + 1))
    other = drive.put('sub/cifar_preresnet56_simam.pth.tar', authors_file(tmp_path, 'cifar_preresnet56_simam'))
    wanted = drive.put('best.pth', content)
    drive.put('cifar_preresnet20_simam.pth', content[:5000])
    loaded = model()
    torch.manual_seed(0)
    assert torch.equal(loaded.conv1.weight, timm.create_model(NAME).conv1.weight)
    assert drive.asked[0] == FOLDER and drive.asked[1].endswith('4') and wanted in drive.asked and other in drive.asked
    (warning,) = caplog.messages
    assert 'github.com/authors/repository, licence: none named' in warning and 'no digest of them is known' in warning
    note = imported(checkpoint)
    assert (note['source'], note['source_size']) == (wanted, len(content))
    assert note['source_sha256'] == hashlib.sha256(content).hexdigest() and len(note['imported']) == 10
    assert sorted(store_dir().iterdir()) == sorted([stored_path(checkpoint), record_path(checkpoint)])
    asked = len(drive.asked)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setenv('TIMM_ATTN_VERIFIED_ONLY', '1')
    assert torch.equal(model().conv1.weight, loaded.conv1.weight) and len(drive.asked) == asked


def test_a_file_that_changed_is_refused_until_it_is_accepted(
    checkpoint: Checkpoint, drive: Drive, tmp_path: Path
) -> None:
    address = drive.put('x.pth', authors_file(tmp_path))
    model()
    path, note = stored_path(checkpoint), imported(checkpoint)
    assert path is not None
    path.unlink()
    model()  # the same bytes again
    path.unlink()
    drive.files[address] = authors_file(tmp_path, seed=1)
    with pytest.raises(
        RuntimeError, match=rf'has changed since {note["imported"]}: its sha256 .*`timm-attn weights remo'
    ):
        model()
    assert imported(checkpoint)['source_sha256'] == note['source_sha256'] and not path.exists()
    remove(f'{NAME}.{TAG}')
    model()
    assert imported(checkpoint)['source_sha256'] == hashlib.sha256(drive.files[address]).hexdigest()


@pytest.mark.parametrize(
    'fault, message',
    [
        (ValueError('Cannot parse\nthe page'), r'Google Drive did not give \S+ \(Cannot parse the page\): download '),
        (ConnectionError(), r'\(ConnectionError\): download '),
        (TimeoutError('timed out'), r'\(timed out\): download '),
    ],
)
def test_drive_does_not_answer(fault: Exception, message: str, checkpoint: Checkpoint, drive: Drive) -> None:
    drive.fault = fault
    with pytest.raises(RuntimeError, match=message) as error:
        model()
    said = f'download {FOLDER} in a browser and run `timm-attn weights import {NAME}.{TAG} FILE`.'
    assert str(error.value).endswith(said) and not list(store_dir().iterdir())


def test_a_folder_without_the_file(checkpoint: Checkpoint, drive: Drive, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r'the folder is empty\): download '):
        model()
    drive.put('a.pth', authors_file(tmp_path, 'cifar_preresnet56_simam'))
    drive.put('../../b.html', b'<!DOCTYPE html> quota exceeded')
    with pytest.raises(
        RuntimeError, match=r'a\.pth: The state dict does not fit .*b\.html: .* is an HTML page'
    ) as error:
        model()
    assert str(store_dir()) not in str(error.value) and not list(store_dir().iterdir())


def test_one_file(drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registered(monkeypatch, record_at(FILE, 'MIT')):
        drive.files[FILE] = bytes(16 * 272_282 + 1)
        with pytest.raises(RuntimeError, match=r'it has more than the 4,356,512 bytes expected\): download '):
            model()
        drive.files[FILE] = authors_file(tmp_path)
        assert model() is not None and drive.asked == [FILE, FILE]


def test_gdown_is_missing_or_the_disk_is_full(
    checkpoint: Checkpoint, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive.put('x.pth', b'')
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'gdown', None)
        with pytest.raises(RuntimeError, match=r'\(gdown is missing: pip install gdown\): download https://drive'):
            model()
    monkeypatch.setattr(drive, 'download', lambda **kwargs: (_ for _ in ()).throw(OSError(28, 'No space left')))
    with pytest.raises(OSError, match=r'cannot be written to .*store/.* .No space left.*TIMM_ATTN_HOME'):
        model()
    assert not list(store_dir().iterdir())


_COMMON = {'url', 'quiet', 'use_cookies', 'timeout'}
FUNCTIONS = {'download': {*_COMMON, 'output', 'progress'}, 'download_folder': {*_COMMON, 'skip_download'}}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_the_real_gdown_has_what_is_called(name: str) -> None:
    gdown = pytest.importorskip('gdown', reason='the package gdown is not installed')
    assert FUNCTIONS[name] <= set(inspect.signature(getattr(gdown, name)).parameters)


@pytest.mark.parametrize(
    'setting, message',
    [
        ('HF_HUB_OFFLINE', 'are not here, and HF_HUB_OFFLINE is set: unset it once, or download https://drive'),
        ('TIMM_ATTN_VERIFIED_ONLY', 'have no known digest, and TIMM_ATTN_VERIFIED_ONLY is set: unset it'),
    ],
)
def test_what_refuses_them(
    setting: str, message: str, checkpoint: Checkpoint, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, '1')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', setting == 'HF_HUB_OFFLINE')
    with pytest.raises(RuntimeError, match=message):
        model()
    assert not drive.asked
    if setting == 'TIMM_ATTN_VERIFIED_ONLY':
        with pytest.raises(RuntimeError, match='is set: unset it, or take resnet50_se.osmr_in1k'):
            timm.create_model('resnet50_se', pretrained=True)
        monkeypatch.setenv(setting, '0')
        with pytest.raises(RuntimeError, match='the folder is empty'):
            model()


TIMM, REPO = 'resnet50_se.ra2_in1k', 'timm/seresnet50.ra2_in1k'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        template = f'{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}'  # the client's, made on import
        for name, value in dict(ENDPOINT=hub.url, HUGGINGFACE_CO_URL_TEMPLATE=template, HF_HUB_OFFLINE=False).items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        yield hub


def test_timms_own_weights_are_a_tag_of_ours(
    hub: LocalHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = timm.create_model('seresnet50').eval()
    hub.add(REPO, {'model.safetensors': save(theirs.state_dict())})
    ours = timm.create_model(TIMM, pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-5)
    assert 'licence: Apache-2.0) are fetched unverified' in caplog.text
    asked = len(hub.requests)
    wide = timm.create_model(TIMM, pretrained=True, num_classes=3, in_chans=1)
    assert torch.equal(wide.layer1[0].se.fc1.weight, theirs.layer1[0].se.fc1.weight.flatten(1))
    record = weights.find_checkpoint(*TIMM.split('.'))
    assert any(line.endswith(str(verified_path(record))) for line in listing()) and len(hub.requests) == asked
    with pytest.raises(ValueError, match='is in the cache of the Hugging Face Hub, which timm shares'):
        remove(TIMM)
    monkeypatch.setenv('TIMM_ATTN_VERIFIED_ONLY', '1')
    with pytest.raises(RuntimeError, match='have no known digest, .* or take resnet50_se.osmr_in1k'):
        timm.create_model(TIMM, pretrained=True)


@pytest.mark.parametrize(
    'state, message',
    [
        ('gone', rf'{TIMM} could not be fetched from http://\S+/{REPO}: .*404'),
        ('other net', 'does not fit'),
        ('silent', f'{TIMM} could not be fetched from http://127.0.0.1:9/{REPO}: it cannot be reached'),
        ('offline', f'HF_HUB_OFFLINE is set: unset it once, or set HF_HOME to a folder whose cache has {REPO}'),
    ],
)
def test_timms_weights_cannot_be_had(state: str, message: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, {'model.safetensors': save({'x': torch.ones(1)})})
    if state == 'gone':
        hub.fail(REPO, 'model.safetensors', '404')
    if state == 'silent':
        monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
        monkeypatch.setattr(reach, '_SECONDS', 1)
    if state == 'offline':
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises((RuntimeError, ValueError), match=message) as error:
        timm.create_model(TIMM, pretrained=True)
    assert '\n' not in str(error.value)
