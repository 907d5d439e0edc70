"""The path of a row, and memory that shows what a kernel forgot to write."""

from collections.abc import Iterator

import pytest
import torch

from tests.support.simam_paths import Row
from timm_attn import ops
from timm_attn.ops.triton import tiles


@pytest.fixture
def row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Row]:
    """A row whose path simam takes inside the test."""
    if request.param.in_steps:
        for limit, size in {'ON_CHIP_BYTES': 512, 'STEP_BYTES': 256, 'SMALL_BYTES': 128}.items():
            monkeypatch.setattr(tiles, limit, size)
    with ops.use_simam_path(request.param.path):
        yield request.param


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fresh memory is NaN: what a path forgets to write fails."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
