"""Published checkpoints: fetched from a hub on this machine, verified every time, and what goes wrong on the way."""

import hashlib
import ssl
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load, load_file, save

from tests.support.hub_server import LocalHub
from tests.support.published import NAME, REPO, TAG, folder_is_clean, model
from tests.support.records import registered
from timm_attn import weights, zoo
from timm_attn.weights import store
from timm_attn.weights.fetch import Redirects
from timm_attn.weights.inventory import is_present, path_of
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import stored_path


def test_a_checkpoint_is_fetched_once_and_verified_every_time(
    checkpoint: Checkpoint, hub: LocalHub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f'{NAME}.{TAG}' in timm.list_models(pretrained=True)
    first = model()
    path = stored_path(checkpoint)
    assert path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o644 and folder_is_clean()
    asked = len(hub.requests)
    assert {method for method, _ in hub.requests} == {'GET'}
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    for again in (model(), timm.create_model(NAME, pretrained=True), getattr(zoo, NAME)(pretrained=True, tag=TAG)):
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    assert len(hub.requests) == asked and path_of(f'{NAME}.{TAG}') == path


def test_variants_of_a_call(checkpoint: Checkpoint, hub: LocalHub, tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'toy.safetensors').write_bytes(content)
    saved = load_file(tmp_path / 'toy.safetensors')
    wide = timm.create_model(NAME, pretrained=True, num_classes=3, cache_dir=tmp_path / 'elsewhere')
    assert wide.fc.out_features == 3 and torch.equal(wide.conv1.weight, saved['conv1.weight'])
    assert is_present(checkpoint, tmp_path / 'elsewhere') and not is_present(checkpoint)
    features = timm.create_model(NAME, pretrained=True, features_only=True, in_chans=1)
    assert torch.equal(features.layer1[0].conv1.weight, saved['layer1.0.conv1.weight'])
    overlaid = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=dict(mean=(0.5, 0.5, 0.5)))
    assert overlaid.pretrained_cfg['mean'] == (0.5, 0.5, 0.5)
    by_cfg = timm.create_model(NAME, pretrained=True, pretrained_cfg=timm.get_pretrained_cfg(f'{NAME}.{TAG}'))
    assert torch.equal(by_cfg.conv1.weight, saved['conv1.weight'])
    assert [m for m, path in hub.requests if '/resolve/' in path] == ['GET', 'GET'], 'one for each folder'


def test_two_files_of_one_revision(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole cfg names its own file, not the first one of the repository; another net's is not taken for ours."""
    files = {f'{tag}.safetensors': save(timm.create_model(NAME).state_dict()) for tag in ('a', 'b')}
    revision = hub.add(REPO, files)
    with ExitStack() as stack:
        for name, content in files.items():
            record = Checkpoint(
                NAME, name[0], 'published', 1, dict(num_classes=10), None, len(content),
                hashlib.sha256(content).hexdigest(), hub={'id': REPO, 'revision': revision, 'filename': name},
            )  # fmt: skip
            stack.enter_context(registered(monkeypatch, record))
        for name, content in files.items():
            cfg = timm.get_pretrained_cfg(f'{NAME}.{name[0]}')
            model = timm.create_model(NAME, pretrained=True, pretrained_cfg=cfg)
            assert torch.equal(model.conv1.weight, load(content)['conv1.weight']), name
            assert weights.chosen_checkpoint('cifar_resnet20', {'pretrained_cfg': cfg}) is None
        by_id = {'pretrained_cfg_overlay': {'hf_hub_id': f'{REPO}@{revision}'}}  # that is, its model.safetensors
        assert weights.chosen_checkpoint(NAME, by_id) is None


@pytest.mark.parametrize(
    'fault, message',
    [
        (
            '404',
            r'org/toy/resolve/\w{40}/model.safetensors: HTTP 404, the repository has no such file at this revision',
        ),
        ('401', 'HTTP 401, there is no such repository, or it is private: set HF_TOKEN'),
        ('500', 'HTTP 500, Internal Server Error'),
        ('truncated', r'was not kept: the connection ended after [\d,]+ of [\d,]+ bytes'),
        ('longer', r'was not kept: it has more than the [\d,]+ bytes expected'),
        ('endless', r'was not kept: it has more than the [\d,]+ bytes expected'),
        ('flipped', r'was not kept: it has sha256 \w{16}... instead of \w{16}...'),
        ('html', r'was not kept: the server sent an HTML page instead'),
        ('lengthless', r'was not kept: it has 1,000 bytes instead of [\d,]+'),
        ('slow', r'timed out'),
        ('reset', r'could not be fetched from http://.*reset'),
        ('file_redirect', "HTTP 302, .*'file:///etc/passwd' is not allowed"),
    ],
)
def test_faults_of_the_server(fault: str, message: str, checkpoint: Checkpoint, hub: LocalHub) -> None:
    hub.fail(REPO, 'model.safetensors', fault)
    with pytest.raises(RuntimeError, match=message) as error:
        model()
    assert len(str(error.value).splitlines()) == 1 and f'{NAME}.{TAG}' in str(error.value)
    assert not is_present(checkpoint) and folder_is_clean()
    hub.fail(REPO, 'model.safetensors', f'once:{fault}')  # a retry after it starts clean
    with pytest.raises(RuntimeError):
        model()
    assert model() is not None


@pytest.mark.parametrize(
    'before, after, followed',
    [
        ('https://a/x', 'https://b/y', True),
        ('http://a/x', 'https://b/y', True),
        ('http://a/x', 'http://b/y', True),
        ('https://a/x', 'http://b/y', False),
        ('https://a/x', 'ftp://b/y', False),
    ],
)
def test_redirects(before: str, after: str, followed: bool) -> None:
    def redirect() -> Any:
        request = urllib.request.Request(before)
        return Redirects().redirect_request(request, BytesIO(), 302, 'Found', Message(), after)

    if followed:
        assert redirect().full_url == after
    else:
        with pytest.raises(urllib.error.URLError, match=f'a redirect to {after} is not followed'):
            redirect()


def test_an_etag_names_no_file(checkpoint: Checkpoint, hub: LocalHub, tmp_path: Path) -> None:
    hub.fail(REPO, 'model.safetensors', 'evil_etag')
    model()
    assert [p.name for p in tmp_path.iterdir()] == ['store'] and not (tmp_path.parent / 'x').exists()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(sha256='0' * 64), 'it has sha256 .* instead of 0000000000000000'),
        (dict(size=77), 'it has more than the 77 bytes expected'),
        (dict(hub=dict(id='org/none', revision='0' * 40, filename='model.safetensors')), 'there is no such repository'),
        (dict(hub=dict(id=REPO, revision='0' * 40, filename='model.safetensors')), 'has no such revision'),
    ],
    ids=['sha256', 'size', 'repository', 'revision'],
)
def test_a_wrong_record(change: dict[str, Any], message: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=message):
        weights.verified_path(replace(checkpoint, **change))
    assert folder_is_clean() and not list(store.store_dir().glob('*'))


def test_a_wrong_filename(checkpoint: Checkpoint) -> None:
    hub = {**checkpoint.hub, 'filename': 'other.safetensors'}
    with pytest.raises(RuntimeError, match='HTTP 404, the repository has no such file at this revision'):
        weights.verified_path(replace(checkpoint, hub=hub))


def test_refused_and_offline(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    with pytest.raises(RuntimeError, match=r'could not be fetched from http://127.0.0.1:9/.*refused'):
        model()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(RuntimeError, match=r'are missing at .*, and HF_HUB_OFFLINE is set: unset it once, or set TIMM'):
        model()


def test_the_token_goes_to_the_hub_only(content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server answers 400 to credentials at the address that it redirects to."""
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    with LocalHub(token='hf_secret') as hub:
        monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
        location = {'id': REPO, 'revision': hub.add(REPO, {'m.safetensors': content}), 'filename': 'm.safetensors'}
        record = Checkpoint(
            NAME, TAG, 'published', 1, {}, None, len(content), hashlib.sha256(content).hexdigest(), hub=location
        )
        with pytest.raises(RuntimeError, match='or it is private: set HF_TOKEN'):
            weights.verified_path(record)
        monkeypatch.setenv('HF_TOKEN', 'hf_expired')
        with pytest.raises(RuntimeError, match='HTTP 401, HF_TOKEN is not accepted: renew it, or unset it'):
            weights.verified_path(record)
        monkeypatch.setenv('HF_TOKEN', 'hf_secret')
        assert weights.verified_path(record).read_bytes() == content


def test_an_error_of_the_connection_is_not_one_of_the_disk(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> bytes:
        raise ssl.SSLError(1, 'bad record mac')

    monkeypatch.setattr('http.client.HTTPResponse.read', fail)
    with pytest.raises(RuntimeError, match=r'could not be fetched from http://.*bad record mac.*\(SSLError\)'):
        model()
    assert folder_is_clean()
