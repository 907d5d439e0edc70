"""A server of files, and a mirrored checkpoint on it."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.support.hub_server import LocalHub
from tests.support.mirrored import PTH, at_address, record_of, zipped
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
