"""The tables of docs/benchmarks.md and README from the numbers of runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import speed_tables

ENVIRONMENT = dict(
    date='2026-11-30T17:00:00',
    gpu=None,
    cpu='A CPU',
    instructions='AVX2',
    cores=2,
    threads=1,
    torch='2',
    load_before=[1, 1, 1],
)


def row(case: str, variant: str, speed: float, to_plain: float) -> dict[str, Any]:
    values = dict(cpu_ms=8.0, ms=9.0, speed=speed, to_plain=to_plain, to_eager=1.25)
    ends = {f'{name}{end}': value for name, value in values.items() for end in ('', '_q1', '_q3')}
    return {'case': case, 'variant': variant, 'reference': 'plain/eager', 'rounds': 7, 'paper_fps': None, **ends}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One run, of engines."""
    rows = [
        row('cpu/engines/mobilenetv2/b1', 'plain/eager', 1, 1),
        row('cpu/engines/mobilenetv2/b1', 'plain/OpenVINO', 2, 1),
        row('cpu/engines/mobilenetv2/b1', 'simam/OpenVINO', 1.5, 0.75),
        row('cpu/engines/mobilenetv2/b8', 'simam/OpenVINO', 1.4, 0.7),
    ]
    text = json.dumps({'environment': ENVIRONMENT | {'openvino': '2026.4'}, 'targets': [], 'rows': rows})
    (tmp_path / 'engines.json').write_text(text)
    monkeypatch.setattr(speed_tables, 'BENCHMARKS', tmp_path)


def test_the_short_table_is_of_one_image(run: None) -> None:
    about, _, head, *lines = speed_tables.engines_table().splitlines()
    assert about == '2026-11-30, A CPU with AVX2, 2 cores, 1 thread, torch 2, openvino 2026.4, load average before 1:'
    assert head == '| one image of 224 x 224 | eager | OpenVINO |'
    assert lines[1:] == [
        '| `mobilenetv2_100` | 1.00 (1.00) | 2.00 (1.00) |',
        '| `mobilenetv2_simam` |  | 1.50 (0.75) |',
    ]


def test_the_long_tables_have_every_net_in_every_engine(run: None) -> None:
    text = speed_tables.engine_tables()
    assert 'mobilenetv2, batch 1, 7 rounds:' in text and 'mobilenetv2, batch 8, 7 rounds:' in text
    line = '| `mobilenetv2_simam`, OpenVINO | 8 (8 to 8) | 9 (9 to 9) | 1.50 (1.50 to 1.50) | 0.75 (0.75 to 0.75) |'
    assert line + ' 1.25 (1.25 to 1.25) |' in text.splitlines()
    assert sum('OpenVINO |' in line for line in text.splitlines()) == 3


def test_a_run_without_a_tables_cases_is_left_out(run: None) -> None:
    assert speed_tables.of_benchmarks(speed_tables.printed_speeds) == ''
    assert speed_tables.of_benchmarks(speed_tables.compiled_speeds) == ''
