"""The cases and targets as tables, and the verdicts on them."""

from dataclasses import replace
from typing import Any

import pytest
import timm

from benchmarks import engines, operations
from benchmarks.cases import PICTURES, Case, all_cases, choose
from benchmarks.measure import LEAST_ROUNDS, Runner, Times
from benchmarks.measured import Measured, measure, outcomes
from benchmarks.targets import TARGETS, Target
from timm_attn.paper.compare import printed
from timm_attn.paper.speed import printed_speeds

NAMES = [case.name for case in all_cases()]


def variants_of(case: Case) -> list[str]:
    """From the table alone: nothing is built."""
    build: Any = case.build
    if build.func is operations.simam_runners:
        return ['formula', 'reference', 'blocks', 'simam', *(['copy'] if build.keywords.get('copy') else [])]
    if build.func is engines.engine_runners:
        return ['/'.join(pair) for pair in engines.variants_of(*build.args)]
    return list(build.args[0])


def test_cases() -> None:
    assert len(set(NAMES)) == len(NAMES) and {case.device for case in all_cases()} == {'cpu', 'cuda'}
    for case in all_cases():
        assert case.reference in variants_of(case) and case.quick <= case.rounds and case.rounds >= LEAST_ROUNDS
    full = choose(quick=False, only='*', compiled=False)
    quick = choose(quick=True, only='*', compiled=True)
    assert set(quick) < set(full) and not any(case.compiled or case.engines for case in full)
    assert {c for c in full if '/op/' in c.name and 'bandwidth' not in c.name and c.device == 'cpu'} < set(quick)
    assert {'cpu/resnet50/b1', 'cpu/fuse/b1'} < {c.name for c in quick}
    everything = choose(quick=False, only='*', compiled=True, engines=True)
    assert {c.name for c in everything if c.compiled} == {n for n in NAMES if '/compiled/' in n}
    assert {c.name for c in everything if c.engines} == {n for n in NAMES if '/engines/' in n}
    assert {case.picture for case in all_cases()} == set(PICTURES)
    assert [c.name for c in choose(quick=False, only='cpu/fuse/*', compiled=False)] == ['cpu/fuse/b1', 'cpu/fuse/b8']


@pytest.mark.parametrize('target', TARGETS, ids=lambda t: f'{t.case}-{t.variant}-{t.against}')
def test_a_target_is_of_variants_that_are_measured(target: Target) -> None:
    case = {case.name: case for case in all_cases()}[target.case]
    assert {target.variant, target.against or case.reference, target.elsewhere or case.reference} <= set(
        variants_of(case)
    )


def fake(name: str, **speeds: float) -> Measured:
    """A case whose variants have these speeds."""
    seconds = {variant: [1 / speed] * 3 for variant, speed in speeds.items()}
    case = Case(name, name, dict, next(iter(speeds)))
    return Measured(case, Times(seconds), {variant: {'saved_inputs': 1.5} for variant in speeds})


@pytest.mark.parametrize(
    'limit, quantity, against, verdict',
    [
        (0.8, 'speed', '', 'met'),
        (0.81, 'speed', '', 'missed'),
        (1.6, 'speed', 'other', 'met'),
        (1.61, 'speed', 'other', 'missed'),
        (1.5, 'saved_inputs', '', 'met'),
        (1.4, 'saved_inputs', '', 'missed'),
    ],
)
def test_verdicts(limit: float, quantity: str, against: str, verdict: str) -> None:
    measured = fake('cpu/x', plain=1, ours=0.8, other=0.5)
    target = Target('what', 'cpu/x', 'ours', limit, against, 'other', quantity)
    outcome = outcomes([measured], [target])[0]
    assert outcome.verdict == verdict
    assert outcome.measured is not None and outcome.elsewhere is not None
    assert outcome.elsewhere.median == {'': 0.5, 'other': 1}[against] if quantity == 'speed' else 1.5


def test_targets_that_were_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [Target('what', name, 'ours', 1) for name in ('cpu/x', 'cuda/x')]
    for gpu, verdicts in ((False, ['not in this run', 'no GPU']), (True, ['not in this run'] * 2)):
        monkeypatch.setattr('torch.cuda.is_available', lambda gpu=gpu: gpu)
        found = outcomes([], targets)
        assert [o.verdict for o in found] == verdicts and found[0].measured is None


def test_a_case_is_measured_in_fresh_processes() -> None:
    """Each with its part of the rounds; a row of the table, since the processes find it there."""
    case = next(case for case in all_cases() if case.name == 'cpu/op/forward/1x512x7x7')
    assert case.starts > 1
    measured = measure(replace(case, rounds=3, starts=2))
    assert {name: len(seconds) for name, seconds in measured.times.seconds.items()} == dict.fromkeys(
        variants_of(case), 4
    )
    assert measured.rate('simam') > 0 and measured.memory.keys() == measured.times.cpu.keys()


def test_a_case_is_let_go_of_even_if_a_variant_fails() -> None:
    def broken() -> None:
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        measure(Case('cpu/x', 'x', lambda: {'a': Runner(broken)}, 'a'))


def test_printed_speeds() -> None:
    speeds = {speed.model: speed.fps for speed in printed_speeds()}
    assert len(speeds) == 36 and speeds['resnet50'] == 89 and speeds['resnet50_simam'] == speeds['resnet50_se'] == 64
    assert speeds['mobilenetv2_simam'] == 66
    assert {c.name for c in all_cases() if c.paper} == {n for n in NAMES if '/table3/' in n} and len(speeds) % 6 == 0
    assert all(timm.is_model(name) for name in speeds)
    assert not any('fps' in table['columns'] for table in printed()['tables'])  # a speed is no count
