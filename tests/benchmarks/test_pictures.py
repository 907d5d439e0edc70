"""Pictures from the numbers of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pictures
from benchmarks.figure import SpeedPanel
from benchmarks.measure import Spread
from tests.support.commands import ROOT

RUN = json.loads((ROOT / 'results' / 'benchmark' / 'cpu.json').read_text(encoding='utf-8'))


def test_a_picture_per_kind_has_its_cases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[str, list[SpeedPanel]] = {}
    monkeypatch.setattr(
        pictures, 'benchmark_figure', lambda title, panels: drawn.setdefault(title.split('\n')[0], panels)
    )
    monkeypatch.setattr('timm_attn.figures.save', lambda figure, path: path)
    paths = pictures.draw(tmp_path / 'x.png', RUN['environment'], RUN['targets'], RUN['rows'])
    assert [path.name for path in paths] == ['x_operation.png', 'x_nets.png', 'x_table3.png']
    assert sum(map(len, drawn.values())) == len({row['case'] for row in RUN['rows']})
    fused = next(
        p for p in drawn[pictures.PICTURES['nets']] if p.title.startswith('fuse(resnet50), inference, batch 1')
    )
    assert fused.reference == 'plain' and [bar.name for bar in fused.bars][:2] == ['fused plain', 'fused simam']
    assert fused.bars[1].target == 1.06  # against the reference, and not against the fused plain net
    table3 = drawn[pictures.PICTURES['table3']][0]
    assert {bar.name: bar.paper for bar in table3.bars}['resnet18_se'] == pytest.approx(144 / 215)


def test_the_picture_of_engines_has_their_speeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Any] = []
    monkeypatch.setattr(pictures, 'engine_figure', lambda title, panels: found.extend(panels))
    monkeypatch.setattr('timm_attn.figures.save', lambda figure, path: path)
    case = 'cpu/engines/resnet50/b1'
    rows = [{'case': case, 'variant': 'plain/eager', 'speed': 1.0, 'speed_q1': 0.9, 'speed_q3': 1.1}]
    pictures.draw(tmp_path / 'x.png', RUN['environment'], [], rows)
    assert found == [('resnet50 in the engines, batch 1, CPU', {'plain/eager': Spread(1.0, 0.9, 1.1)})]
