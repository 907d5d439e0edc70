"""Every attention in the engines that are quick and installed; scripts/engine_table.py has the others, too."""

import json
import os
import sys
from collections.abc import Callable

import pytest
from engine_cells import NETS, PLAIN, Cell, cell
from engine_runs import Run
from engine_table import RESULTS, TABLE, table
from engines import ENGINES, Convert, Engine
from torch import Tensor, nn

from tests.support.commands import ROOT, run

QUICK = (
    'TorchScript',
    'TorchScript of fuse',
    'torch.export',
    'ONNX dynamo',
    'ONNX legacy',
    'OpenVINO of ONNX',
    'INT8 onnxruntime',
)


@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('net', NETS)
@pytest.mark.parametrize('engine', QUICK)
def test_it_computes_the_same(engine: str, net: str) -> None:
    missing = ENGINES[engine].missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'timm-attn[deploy]'")
    found = cell(ENGINES[engine], net)
    assert found.works and not found.note, found


TWO_ENGINES = """
import os, signal, torch
net, images = torch.nn.Conv2d(3, 3, 1).eval(), torch.rand(2, 3, 8, 8)
first = build(net, images)
second = build(net, images)
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print('handled'))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.parametrize(
    'build',
    [
        'from engines import openvino_of_onnx as build',
        "from benchmarks.engines import ENGINES; build = ENGINES['OpenVINO'].build",
    ],
)
def test_a_signal_after_two_openvino_engines_is_handled(build: str) -> None:
    """Python's handlers run on the thread's stack for signals, which each core of OpenVINO replaces by its own."""
    missing = ENGINES['OpenVINO of ONNX'].missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'timm-attn[deploy]'")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / 'scripts')))
    assert run(sys.executable, '-W', 'ignore', '-c', build + TWO_ENGINES, PYTHONPATH=paths).endswith('handled\n')


def changed(change: Callable[[Tensor], Tensor]) -> Convert:
    """An engine that changes the logits."""

    def convert(net: nn.Module, images: Tensor) -> Run:
        return lambda images: change(net(images))

    return convert


def refusing(net: nn.Module, images: Tensor) -> Run:
    raise NotImplementedError('no such\n operator')


same = changed(lambda y: y)
JUDGED: dict[str, tuple[Engine, Cell]] = {
    'right': (Engine(same), Cell(True, 0.0)),
    'a little off': (
        Engine(changed(lambda y: 1.001 * y)),
        Cell(False, 1e-3, 'logits differ by 1.0e-03 of the largest'),
    ),
    'not a number': (
        Engine(changed(lambda y: y / 0 * 0)),
        Cell(False, None, 'ValueError: logits that are not finite'),
    ),
    'another shape': (
        Engine(changed(lambda y: y[:, :1])),
        Cell(False, None, 'ValueError: logits of shape (2, 1) instead of (2, 10)'),
    ),
    'an error': (Engine(refusing), Cell(False, None, 'NotImplementedError: no such operator')),
    'an option': (Engine(refusing, option=('care', same)), Cell(True, 0.0, 'with care')),
    'an option that does not help': (
        Engine(refusing, option=('care', changed(lambda y: y[:, :1]))),
        Cell(
            False,
            None,
            'NotImplementedError: no such operator; with care: ValueError: logits of shape (2, 1) instead of (2, 10)',
        ),
    ),
    'rounded': (Engine(changed(lambda y: 1.01 * y), int8=True), Cell(True, 40.0)),
    'rounded away': (
        Engine(changed(lambda y: 1.5 * y), int8=True),
        Cell(False, 6.02, '6 dB of signal to noise'),
    ),
}


@pytest.mark.parametrize('case', JUDGED)
def test_what_a_cell_says(case: str) -> None:
    engine, expected = JUDGED[case]
    found = cell(engine, PLAIN)
    assert found._replace(value=None) == expected._replace(value=None)
    assert found.value == (None if expected.value is None else pytest.approx(expected.value, rel=1e-2))


def test_every_size_is_run() -> None:
    """A conversion that holds only for the example's size fails, unless the engine says so."""

    def of_one_width(net: nn.Module, images: Tensor) -> Run:
        return lambda x: net(x) * (x.shape[3] == images.shape[3])

    assert not cell(Engine(of_one_width), PLAIN).works
    assert cell(Engine(of_one_width, any_size=False), PLAIN).works


def test_the_recorded_table_is_whole() -> None:
    """Each engine in it has every net, with a number or a reason; the page says so of engines that did not run."""
    results = json.loads(RESULTS.read_text())
    assert [name for name in ENGINES if name in results] == list(results) and not set(QUICK) - set(results)
    for row in results.values():
        assert list(row['cells']) == list(NETS) and row['date'] and row['versions']['torch']
        for found in row['cells'].values():
            assert found['value'] is not None if found['works'] else found['note']
    assert TABLE.read_text() == table(results)
