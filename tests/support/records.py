"""Records of checkpoints that a test puts into the manifest and the registry for a while."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from timm_attn import weights, zoo
from timm_attn.weights import manifest
from timm_attn.weights.manifest import Checkpoint


@contextmanager
def registered(monkeypatch: pytest.MonkeyPatch, *records: Checkpoint) -> Iterator[None]:
    """A block in which the manifest has these records, too, in the place of those of the same name and tag."""
    names = {record.name for record in records}
    replaced = {record.full_name for record in records}
    found = (*(c for c in manifest.checkpoints() if c.full_name not in replaced), *records)
    with monkeypatch.context() as patch:
        for module in (manifest, weights, sys.modules['timm_attn.weights.inventory']):
            patch.setattr(module, 'checkpoints', lambda: found)
        _register_again(names)
        yield
    _register_again(names)


def _register_again(names: set[str]) -> None:
    for name in names:
        zoo._models.pop(name)
    zoo.register()
