"""`python -m benchmarks` on small nets: what it prints, keeps and refuses."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import cases, nets, operations, report
from benchmarks.__main__ import main, parser
from benchmarks.cases import Case, choose
from benchmarks.measure import Runner
from benchmarks.measured import Measured, measure
from benchmarks.targets import TARGETS
from tests.support.commands import ROOT
from timm_attn.paper.speed import printed_speeds


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The names of real cases, small nets and maps, and one that a GPU would run."""
    r18 = {'plain': 'resnet18', 'simam': 'resnet18_simam', 'se': 'resnet18_se', 'eca': 'resnet18_eca'}
    variants = {name: nets.named(model) for name, model in r18.items()}
    variants |= {
        f'{name}, {by}': variants[name] for name, by in (('se', 'timm'), ('eca', 'timm'), ('simam', 'formula'))
    }
    variants |= {'cbam': nets.named('resnet18_cbam'), 'cbam, timm': nets.with_timm_layer('resnet18', 'cbam')}
    speeds = tuple(speed for speed in printed_speeds() if speed.model in ('resnet18', 'resnet18_eca'))

    def infer(chosen: dict[str, nets.Variant]) -> Callable[[], dict[str, Runner]]:
        return lambda: nets.inference_runners(chosen, 1, 'cpu', size=32)

    table3 = infer({speed.model: nets.named(speed.model) for speed in speeds})
    op = Case(
        'cpu/op/training/8x64x56x56', 'op', lambda: operations.simam_runners('training', (1, 2, 3, 4), 'cpu'),
        'formula', ('GB/s', 1e-9), rounds=4, quick=2,
    )  # fmt: skip
    rows = (
        op,
        Case('cpu/resnet50/b1', 'nets', infer(variants), 'plain', rounds=3),
        Case('cpu/table3/resnet18', 'Table 3', table3, 'resnet18', rounds=3, paper=speeds),
        Case('cuda/resnet50/b128', 'GPU', dict, 'plain'),
    )
    monkeypatch.setattr(cases, 'all_cases', lambda: rows)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


def test_a_run(tiny: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'speed.png'
    assert main(['--output', str(out), '--threads', '1']) == 0
    text = capsys.readouterr().out
    pictures = [f'speed_{kind}.png' for kind in ('operation', 'nets', 'table3')]
    assert text.splitlines()[-4:] == [str(out.with_name(name)) for name in (*pictures, 'speed.json')]
    assert {path.name for path in out.parent.iterdir()} == {*pictures, 'speed.json'}
    for line in ('| SimAM saved for backward, in inputs (1 + 2 numbers per channel) | <= 1.001 | ', '| no GPU |'):
        assert line in text
    assert 'ResNet-18 + ECA, cpu' in text and '148' in text and 'load average before [' in text
    told = json.loads(out.with_suffix('.json').read_text())
    assert told['environment']['threads'] == 1 and told['environment']['load_after'] and told['environment']['cpu']
    rows = {(row['case'], row['variant']): row for row in told['rows']}
    assert len(rows) == len(told['rows']) == 4 + 9 + 2
    assert rows['cpu/resnet50/b1', 'se, timm']['speed_q1'] <= rows['cpu/resnet50/b1', 'se, timm']['speed']
    eca = rows['cpu/table3/resnet18', 'resnet18_eca']
    assert eca['rounds'] == 3 and eca['paper_fps'] == 148 and eca['rate'] == pytest.approx(1000 / eca['ms'], rel=1e-3)
    measured = {case.name for case in cases.all_cases()}
    assert [t['what'] for t in told['targets']] == [t.what for t in TARGETS if t.case in measured]
    assert {t['verdict'] for t in told['targets'] if t['case'].startswith('cuda/')} == {'no GPU'}
    assert {t['verdict'] for t in told['targets'] if t['case'] == 'cpu/resnet50/b1'} <= {'met', 'missed'}


def test_a_quick_run_of_one_case_as_csv(tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    threads: list[int] = []
    monkeypatch.setattr(report, 'measure', lambda *case: threads.append(torch.get_num_threads()) or measure(*case))
    out = tmp_path / 'speed.svg'
    assert main(['--quick', '--threads', '2', '--numbers', 'csv', '--output', str(out)]) == 0
    assert threads == [2]
    head, *rows = out.with_suffix('.csv').read_text().splitlines()
    assert [row.split(',')[:4] for row in rows] == [
        ['cpu/op/training/8x64x56x56', name, 'formula', '2'] for name in ('formula', 'reference', 'blocks', 'simam')
    ]
    assert head.startswith('case,variant,reference,rounds,ms,') and out.with_stem('speed_operation').is_file()


def test_a_run_of_some_cases_is_about_their_targets(
    tiny: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / 'speed.png'
    assert main(['--quick', '--only', 'cpu/op/*', '--threads', '1', '--output', str(out)]) == 0
    expected = [target.what for target in TARGETS if target.case == 'cpu/op/training/8x64x56x56']
    rows = [line.split(' | ')[0][2:] for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert rows[2:] == expected and len(expected) == 2  # below the heads
    assert [t['what'] for t in json.loads(out.with_suffix('.json').read_text())['targets']] == expected


def test_what_was_measured_is_kept(tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that is cut off leaves the cases it has finished."""

    def cut_off(case: Case, quick: bool) -> Measured:
        if case.name == 'cpu/resnet50/b1':
            raise KeyboardInterrupt
        return measure(case, quick)

    monkeypatch.setattr(report, 'measure', cut_off)
    with pytest.raises(KeyboardInterrupt):
        report.benchmark(tmp_path / 'speed.png')
    assert {row['case'] for row in json.loads((tmp_path / 'speed.json').read_text())['rows']} == {
        'cpu/op/training/8x64x56x56'
    }


@pytest.mark.parametrize(
    'argv, message',
    [
        ('--only cpu/nothing', "No case of this run matches 'cpu/nothing': choose from cpu/op/training/8x64x56x56, "),
        ('--quick --only cpu/resnet50/b1', "No case of this run matches 'cpu/resnet50/b1': choose from cpu/op/"),
        ('--only cuda/*', "The cases that match 'cuda/*' need a GPU, and torch sees none."),
        ('--threads 0', 'threads must be positive, but got 0.'),
        ('--output x.pdf', "A figure is a .png or .svg file, but got 'x.pdf'."),
        ('--output file/x.png', 'file/x.png cannot be written: '),
        ('--output folder.png', 'folder.png cannot be written: it is a folder.'),
    ],
)
def test_refusals(
    tiny: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path('file').write_text('')
    Path('folder.png').mkdir()
    assert main(shlex.split(argv)) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count('\n') == 1 and captured.out == ''
    assert {path.name for path in tmp_path.rglob('*')} == {'file', 'folder.png'}


def test_the_commands_of_the_docs() -> None:
    section = (ROOT / 'docs' / 'benchmarks.md').read_text(encoding='utf-8')
    command = 'python -m benchmarks '
    commands = [shlex.split(line, comments=True)[3:] for line in section.splitlines() if line.startswith(command)]
    assert [vars(parser().parse_args(argv))['quick'] for argv in commands] == [True]
    for glob in re.findall(r"--only '(.*?)'", section):
        assert choose(quick=True, only=glob, compiled=False, engines=True)
    engines = re.findall(r'^OMP_NUM_THREADS=1 python -m benchmarks (.*)$', section, re.M)
    assert [vars(parser().parse_args(shlex.split(argv)))['engines'] for argv in engines] == [True]


def test_without_matplotlib(tiny: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main([]) == 1
    assert "Figures need matplotlib: pip install 'timm-attn[plots]'." in capsys.readouterr().err
