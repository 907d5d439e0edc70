"""The table "Which attention should I use?": what was measured, and what was not."""

import json
from pathlib import Path
from typing import Any

import attention_tables
import pytest

from timm_attn import ATTENTION


def write_run(folder: Path, name: str, date: str, rows: list[dict[str, Any]]) -> None:
    (folder / f'{name}.json').write_text(json.dumps({'environment': {'gpu': None, 'date': date}, 'rows': rows}))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(attention_tables, 'BENCHMARKS', tmp_path)
    return tmp_path


def cells(key: str) -> list[str]:
    """The row of an attention."""
    (row,) = (line for line in attention_tables.which_table('').splitlines() if f'`_{key}`' in line)
    return [cell.strip() for cell in row.strip('|').split('|')]


def test_without_a_run_nothing_is_measured(results: Path) -> None:
    assert [cells(key)[-2:] for key in ATTENTION] == [['not measured'] * 2] * len(ATTENTION)


def test_a_run_without_engines(results: Path) -> None:
    rows = [{'case': 'cpu/resnet50/b1', 'variant': 'se', 'reference': 'plain', 'speed': 0.8}]
    rows += [{'case': 'cpu/resnet50/b8', 'variant': 'eca', 'reference': 'plain', 'speed': 0.5}]  # not one image
    rows += [{'case': 'cpu/table3/resnet50', 'variant': 'resnet50_srm', 'reference': 'resnet50', 'speed': 0.5}]
    write_run(results, 'cpu', '2026-01-01', rows)
    assert cells('se')[-2:] == ['+25 %', 'not measured'] and cells('srm')[-2:] == ['+100 %', 'not measured']
    assert cells('eca')[-2:] == ['not measured'] * 2


def test_the_fastest_engine_is_that_of_the_newest_run(results: Path) -> None:
    case = {'case': 'cpu/engines/resnet50/b1'}
    engines = {
        'se/eager': (0.9, 0.9),
        'se/onnxruntime': (1.9, 0.96),
        'se/OpenVINO': (2.0, 0.8),
        'plain/OpenVINO': (2.5, 1),
    }
    rows = [{**case, 'variant': variant, 'speed': s, 'to_plain': p} for variant, (s, p) in engines.items()]
    write_run(results, 'engines', '2026-02-02', rows)
    write_run(results, 'a', '2026-01-01', [{'case': 'cpu/resnet50/b1', 'variant': 'se', 'speed': 0.5}])
    assert cells('se')[-2:] == ['+11 %', '+25 % (OpenVINO)']
    assert 'in eager torch, +25 % (OpenVINO) in the fastest engine' in attention_tables.time_line('se')


def test_weights_and_parameters() -> None:
    assert cells('se')[3:5] == ['+2,514,944', '81.28'] and cells('simam')[3:5] == ['0', '77.45']
    assert cells('gc')[4] == 'none, `from_`' and 'arxiv.org/abs/1904.11492' in cells('gc')[1]
