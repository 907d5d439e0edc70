"""A folder of Google Drive may list any number of files, of any names."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from timm_attn.weights.drive import files_at
from timm_attn.weights.importing import fetch_and_convert
from timm_attn.weights.manifest import find_full_name


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> str:
    """The address of a folder of thirty files with odd names, none of which Drive gives."""
    files = [SimpleNamespace(id=str(i), path=f'{i}\n{"x" * 300}') for i in range(30)]

    def download(**options: Any) -> None:
        raise ValueError('no quota')

    gdown = SimpleNamespace(download_folder=lambda **options: list(files), download=download)
    monkeypatch.setitem(sys.modules, 'gdown', gdown)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
    return str(find_full_name('resnet18_simam').origin['url'])


def test_only_the_likeliest_files_are_tried(listed: str) -> None:
    assert len(files_at(listed, 'resnet18_simam')) == 20


def test_odd_names_are_one_line(listed: str) -> None:
    with pytest.raises(RuntimeError, match='Google Drive did not give resnet18_simam.authors_in1k .*no quota') as error:
        fetch_and_convert(find_full_name('resnet18_simam'), None, 'are asked for')
    assert '\n' not in str(error.value) and 'x' * 100 not in str(error.value)
