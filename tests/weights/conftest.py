"""A server of files and a hub, with a mirrored and a published checkpoint on them."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from tests.support.hub_server import LocalHub
from tests.support.mirrored import PTH, at_address, record_of, zipped
from tests.support.published import NAME, REPO, TAG
from tests.support.records import registered
from timm_attn.weights.manifest import Checkpoint


@pytest.fixture
def timm_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cfg has an address so that timm lists it; timm's own downloads would check nothing."""
    for name in ('load_state_dict_from_url', 'load_state_dict_from_hf', 'download_cached_file'):
        monkeypatch.setattr(f'timm.models._builder.{name}', lambda *args, **kwargs: pytest.fail('timm fetches it'))


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """Any file server: it redirects to another host, as GitHub does for a file of a release."""
    with LocalHub() as hub:
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr(constants, 'HF_HUB_DOWNLOAD_TIMEOUT', 1)
        monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
        yield hub


@pytest.fixture
def mirrored(file_server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpoint]:
    record = record_of(at_address(file_server, zipped(PTH, packed=zipfile.ZIP_DEFLATED), PTH))
    with registered(monkeypatch, record):
        yield record


@pytest.fixture(scope='module')
def content() -> bytes:
    torch.manual_seed(0)
    return save(timm.create_model(NAME).state_dict(), metadata={'format': 'pt'})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        monkeypatch.setattr(constants, 'ENDPOINT', hub.url)
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr(constants, 'HF_HUB_DOWNLOAD_TIMEOUT', 1)
        monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
        yield hub


@pytest.fixture
def checkpoint(hub: LocalHub, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpoint]:
    """A record of a file on the hub, in the manifest and the registry."""
    record = Checkpoint(
        name=NAME,
        tag=TAG,
        kind='published',
        num_params=274490,
        cfg=dict(num_classes=10, input_size=(3, 32, 32)),
        license='Apache-2.0',
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        hub={'id': REPO, 'revision': hub.add(REPO, {'model.safetensors': content}), 'filename': 'model.safetensors'},
    )
    with registered(monkeypatch, record):
        yield record


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched and imported files, empty."""
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
    return tmp_path / 'store'
