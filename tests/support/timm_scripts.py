"""timm's own scripts, which its wheel lacks: where TIMM_SCRIPTS points at a checkout, else the test is skipped."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

REASON = (
    "timm's scripts are needed: TIMM_SCRIPTS=DIR, the folder of a checkout with train.py "
    '(git clone https://github.com/huggingface/pytorch-image-models)'
)


def script(name: str) -> Path:
    """The path of one of timm's scripts."""
    folder = os.environ.get('TIMM_SCRIPTS')
    if not folder:
        pytest.skip(REASON)
    path = Path(folder) / name
    assert path.is_file(), f'TIMM_SCRIPTS={folder} has no {name}'
    return path


def load_script(name: str) -> Any:
    """One of timm's scripts as a module."""
    spec = importlib.util.spec_from_file_location(f'timm_script_{Path(name).stem}', script(name))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
