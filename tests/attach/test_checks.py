"""scripts/attach_checks.py on nets that hold the layer in every way; scripts/attach_reach.py does it for all."""

from typing import Any

import attach_checks
import attach_reach
import pytest

SAMPLE: dict[tuple[str, str], dict[str, Any]] = {
    ('dla46x_c', 'stages'): {},  # wrapped; a module in the stage takes a list of maps
    ('resnetv2_18', 'table'): dict(layers=(1, 1, 1, 1)),  # before a drop_path
    ('test_efficientnet', 'table'): {},  # replaced
    ('test_mambaout', 'stages'): {},  # appended, (N, H, W, C)
    ('test_mambaout', 'table'): {},  # before a drop_path, (N, H, W, C)
}
# What there is nothing to check of
ABSENT = {
    ('dla46x_c', 'gradient checkpointing'): 'the plain net cannot either',
    ('test_efficientnet', "start='identity' keeps the logits"): 'approximate: its own attention is replaced',
}


@pytest.mark.parametrize('name, way', SAMPLE)
def test_an_attached_net_does_what_the_plain_one_does(name: str, way: str) -> None:
    found = attach_checks.run(name, attach_reach.WAYS[way], **SAMPLE[name, way])
    expected = {title: ABSENT.get((name, title), attach_checks.PASSED) for title in attach_checks.CHECKS}
    assert found == expected


def test_the_page_says_what_is_wrong() -> None:
    """And counts a check that did not pass as such."""
    title, *_ = attach_checks.CHECKS
    found = {**dict.fromkeys(attach_checks.CHECKS, attach_checks.PASSED), title: 'WRONG ValueError: no.'}
    page = list(attach_reach.checks({('net', 'stages'): found}))
    assert f'| {title} | 0 | 1 | 0 | 0 |' in page and f'- {title}: WRONG ValueError: no: net (stages)' in page
