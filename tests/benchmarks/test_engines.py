"""Nets in engines: what is timed computes what eager torch computes, and what is not installed is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from benchmarks import cases, engines
from benchmarks.__main__ import main
from benchmarks.cases import Case
from benchmarks.engines import ENGINES, Engine
from benchmarks.measure import Times
from benchmarks.measured import Measured, rows_of

NETS = engines.nets_of('cifar_resnet20', 'cifar_resnet20', ('simam',))
COMPILED = [name for name, engine in ENGINES.items() if engine.slow]


@pytest.mark.parametrize('name', [name for name in ENGINES if name not in COMPILED])
def test_an_engine_gives_the_logits_of_eager_torch(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if ENGINES[name].missing():
        pytest.skip(f'not installed: {", ".join(ENGINES[name].missing())}')
    monkeypatch.setattr(engines, 'ENGINES', {'eager': ENGINES['eager'], name: ENGINES[name]})
    runners = engines.engine_runners(NETS, 2, size=32)
    assert list(runners) == list(dict.fromkeys(f'{net}/{e}' for net in NETS for e in ('eager', name)))
    for net in NETS:
        with runners[f'{net}/{name}'].around():
            expected, found = (torch.as_tensor(runners[f'{net}/{e}'].call()) for e in ('eager', name))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert runners[f'{net}/{name}'].work == 2


@pytest.mark.parametrize('name', COMPILED)
def test_compiled_engines_are_compiled_when_they_are_built(name: str) -> None:
    call: Any = ENGINES[name].build(nn.Identity(), torch.ones(1))
    assert type(call.func).__name__ == 'OptimizedModule' and call() == 1


@pytest.mark.parametrize('name, freezing', [('compile', False), ('compile, freezing', True)])
def test_freezing_is_on_while_a_net_is_traced(monkeypatch: pytest.MonkeyPatch, name: str, freezing: bool) -> None:
    seen: list[Any] = []

    def compiled(net: nn.Module, dynamic: bool, options: Any) -> Any:
        return lambda images: seen.append((inductor.freezing, options))

    monkeypatch.setattr(torch, 'compile', compiled)
    ENGINES[name].build(nn.Identity(), torch.ones(1))
    assert seen == [(freezing, {'freezing': True} if freezing else None)] and not inductor.freezing


@pytest.mark.parametrize(
    'wrong, message',
    [
        (lambda y: y + 0.01, 'wrong of cifar_resnet20 gives other logits than eager torch: they differ by '),
        (lambda y: y * float('nan'), 'they differ by nan of the largest'),
        (lambda y: y[:, :9], r'wrong of cifar_resnet20 gives logits of shape \(1, 9\) instead of \(1, 10\).'),
    ],
)
def test_an_engine_with_other_logits_is_an_error(monkeypatch: pytest.MonkeyPatch, wrong: Any, message: str) -> None:
    def build(net: nn.Module, images: Tensor) -> engines.Call:
        return lambda: wrong(net(images))

    monkeypatch.setattr(engines, 'ENGINES', {'eager': ENGINES['eager'], 'wrong': Engine(build)})
    with pytest.raises(ValueError, match=message):
        engines.engine_runners(NETS, 1, size=32)


def test_speeds_are_those_of_the_same_engine_and_the_same_net_by_cpu_time() -> None:
    cpu = {'plain/eager': [8.0], 'plain/fuse': [4.0], 'simam/eager': [10.0], 'simam/fuse': [5.0]}
    case = next(case for case in cases.all_cases() if case.engines)
    times = Times({variant: [1.0] for variant in cpu}, {}, cpu)
    rows = {row['variant']: row for row in rows_of(Measured(case, times, {variant: {} for variant in cpu}))}
    columns = ('speed', 'to_plain', 'to_eager', 'cpu_ms', 'ms')
    assert [rows['simam/fuse'][c] for c in columns] == [1.6, 0.8, 2.0, 5000, 1000]
    assert [rows['plain/eager'][c] for c in columns] == [1, 1, 1, 8000, 1000] and rows['simam/fuse']['clock'] == 'cpu'


def test_an_engine_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    absent = Engine(ENGINES['eager'].build, ('no_such_engine',))
    monkeypatch.setattr(engines, 'ENGINES', {'eager': ENGINES['eager'], 'onnxruntime': absent})

    def build() -> Any:
        return engines.engine_runners(NETS, 1, size=32)

    name = 'cpu/engines/resnet50/b1'
    row = Case(name, 'engines', build, 'plain/eager', rounds=3, engines=True, clock='cpu')
    monkeypatch.setattr(cases, 'all_cases', lambda: (row,))
    assert main(['--engines', '--threads', '1', '--output', str(tmp_path / 'x.png')]) == 0
    text = capsys.readouterr().out
    assert 'not measured: onnxruntime, which needs no_such_engine\n' in text
    assert '| resnet50_simam / resnet50 in onnxruntime, batch 1 | >= 0.97 | - | - | not installed |' in text
    assert (tmp_path / 'x_engines.png').is_file()
