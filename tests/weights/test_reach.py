"""timm's own weights without a network: one sentence within seconds."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants

from tests.support.commands import ROOT
from tests.support.hub_server import LocalHub
from timm_attn.reports.net import load_net
from timm_attn.weights import reach

REPO = 'timm/resnet18.a1_in1k'
PICTURE = ROOT / 'docs' / 'samples' / 'coat_17.png'


def listening(backlog: int) -> socket.socket:
    server = socket.socket()
    server.bind(('127.0.0.1', 0))
    server.listen(backlog)
    return server


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts and says nothing."""
    with listening(5) as server:
        yield f'http://127.0.0.1:{server.getsockname()[1]}'


@pytest.fixture
def closed() -> str:
    with listening(1) as server:
        return f'http://127.0.0.1:{server.getsockname()[1]}'


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))


@pytest.mark.parametrize(
    'endpoint, message',
    [('closed', 'it cannot be reached (.*refused.*)'), ('silent', 'does not answer within 1 sec|out')],
)
def test_a_hub_without_an_answer(
    endpoint: str, message: str, online: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(endpoint)
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    monkeypatch.setattr(reach, '_SECONDS', 1)
    start = time.monotonic()
    with pytest.raises(
        RuntimeError, match=f'weights of resnet18 must be fetched from {address}/{REPO}, but .*{message}'
    ):
        load_net('resnet18')
    assert time.monotonic() - start < 5
    with pytest.raises(RuntimeError, match='weights of hf-hub:org/net@v1 must be fetched from .*/org/net, but'):
        load_net('hf-hub:org/net@v1')
    load_net('resnet18', trained=False)


def test_offline() -> None:
    with pytest.raises(RuntimeError, match=f'{REPO}, but HF_HUB_OFFLINE is set: unset it once, or take weights of you'):
        load_net('resnet18')


def test_the_command_says_it_in_one_line(silent: str, tmp_path: Path) -> None:
    env = {**os.environ, 'HF_HUB_OFFLINE': '0', 'HF_ENDPOINT': silent, 'HF_HOME': str(tmp_path)}
    command = [sys.executable, '-m', 'timm_attn.cli', 'predict', 'resnet18', str(PICTURE)]
    start = time.monotonic()
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith('timm-attn: The weights of resnet18 must be fetched from ')
    assert run.stderr.count('\n') == 1 and time.monotonic() - start < 40  # imports among it


def test_a_hub_that_answers_and_a_file_that_is_here(
    online: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
) -> None:
    with LocalHub() as hub:
        monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
        reach.require_reachable('resnet18')
        assert [method for method, _ in hub.requests] == ['HEAD']
    monkeypatch.setattr(constants, 'ENDPOINT', closed)
    snapshot = tmp_path / 'cache' / 'models--timm--resnet18.a1_in1k'
    (snapshot / 'snapshots' / ('a' * 40)).mkdir(parents=True)
    (snapshot / 'snapshots' / ('a' * 40) / 'model.safetensors').write_bytes(b'x')
    (snapshot / 'refs').mkdir()
    (snapshot / 'refs' / 'main').write_text('a' * 40)
    reach.require_reachable('resnet18')
    shutil.rmtree(snapshot)
    with pytest.raises(RuntimeError, match='must be fetched from'):
        reach.require_reachable('resnet18')


def test_what_needs_no_hub(tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model('cifar_resnet20'), str(tmp_path), safe_serialization=True)
    assert load_net(f'local-dir:{tmp_path}').name == 'cifar_resnet20'
    (tmp_path / 'config.json').write_text('{"num_classes": 3}')
    with pytest.raises(ValueError, match="local-dir:.* cannot be built: KeyError, 'architecture'"):
        load_net(f'local-dir:{tmp_path}')
