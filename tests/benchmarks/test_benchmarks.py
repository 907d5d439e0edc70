"""`python -m benchmarks`: the clock, the cases and targets as tables, and a small run through the same code."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from benchmarks import cases, nets, operations, report
from benchmarks.__main__ import main, parser
from benchmarks.cases import Case, all_cases, choose
from benchmarks.formula import paper_simam
from benchmarks.measure import LEAST_ROUNDS, WARM_UP, Runner, Spread, Times, interleaved
from benchmarks.measured import Measured, measure, outcomes
from benchmarks.peak_memory import peak_mib
from benchmarks.targets import TARGETS, Target
from tests.support.commands import ROOT
from timm_attn import ops
from timm_attn.paper.compare import printed
from timm_attn.paper.speed import printed_speeds

NAMES = [case.name for case in all_cases()]


class Clock:
    """Time that passes only in the calls of variants, each of which is written down."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, ''

    def __call__(self) -> float:
        return self.now

    def runner(self, name: str, *seconds: float) -> Runner:
        """A variant that takes these seconds, call by call and from the start again."""
        made = 0

        def call() -> None:
            nonlocal made
            self.now, self.calls, made = self.now + seconds[made % len(seconds)], self.calls + name, made + 1

        return Runner(call)


def test_variants_take_turns_and_another_one_begins_each_round() -> None:
    clock = Clock()
    runners = {name: clock.runner(name, seconds) for name, seconds in (('a', 1.0), ('b', 2.0), ('c', 4.0))}
    times = interleaved(runners, 4, clock=clock)
    warm = 'a' * WARM_UP + 'b' * WARM_UP + 'c' * WARM_UP
    assert clock.calls == warm + 'abc' + 'bca' + 'cab' + 'abc'
    assert times.seconds == {'a': [1.0] * 4, 'b': [2.0] * 4, 'c': [4.0] * 4}


def test_short_calls_are_repeated_as_often_for_each_variant() -> None:
    clock = Clock()
    times = interleaved({'a': clock.runner('a', 0.001), 'b': clock.runner('b', 0.1)}, 1, clock=clock)
    assert clock.calls[2 * WARM_UP :] == 'aaaaabbbbb'
    assert times.milliseconds('a').median == pytest.approx(1) and times.milliseconds('b').median == pytest.approx(100)


def test_no_round_begins_after_the_limit() -> None:
    clock = Clock()
    rounds = [len(interleaved({'a': clock.runner('a', 1.0)}, 9, limit, clock=clock).seconds['a']) for limit in (0, 5)]
    assert rounds == [LEAST_ROUNDS, 6]


def test_the_clock_stands_while_a_context_is_entered_and_waits_for_the_device() -> None:
    clock, inside = Clock(), []

    class Context:
        def __enter__(self) -> None:
            clock.now += 100
            inside.append(True)

        def __exit__(self, *error: object) -> None:
            clock.now += 100
            inside.pop()

    def finish() -> None:
        clock.now += 0.5
        assert inside

    times = interleaved({'a': replace(clock.runner('a', 1.0), around=Context)}, 3, finish=finish, clock=clock)
    assert times.seconds['a'] == [1.5] * 3 and not inside


def test_ratios_are_those_of_each_round() -> None:
    """A round in which the machine was slow has the same ratio: the ratio of the medians would not see that."""
    times = Times({'plain': [1, 10, 2], 'ours': [2, 5, 4]}, {'plain': 1, 'ours': 1})
    assert times.speed('ours', 'plain') == Spread(0.5, 0.5, 1.25)
    assert times.speed('plain', 'plain') == Spread(1, 1, 1)
    twice = Times(times.seconds, {'plain': 8, 'ours': 16})
    assert twice.speed('ours', 'plain') == Spread(1, 1, 2.5) and twice.rate('ours') == 16 / 4


def test_the_formula_is_simam() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    ours, theirs = ops.simam_reference(x, 0.1), paper_simam(twin, 0.1)
    torch.testing.assert_close(ours, theirs)
    for y in (ours, theirs):
        y.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    assert paper_simam(torch.ones(1, 1, 1, 1), 0.1).isnan()  # as it is printed, and not our definition


@pytest.mark.parametrize('work', ['forward', 'backward', 'training'])
def test_operations(work: str) -> None:
    runners = operations.simam_runners(work, (2, 3, 4, 5), 'cpu', memory_format=torch.channels_last, copy=True)
    assert list(runners) == ['formula', 'reference', 'blocks', 'simam', 'copy']
    found = {}
    for name, runner in runners.items():
        with runner.around():
            found[name] = torch.as_tensor(runner.call()[0] if work != 'forward' and name != 'copy' else runner.call())
    for name in ('reference', 'blocks', 'simam'):
        if work == 'forward':  # the gradient that comes in is random
            torch.testing.assert_close(found[name], found['formula'])
        assert found[name].requires_grad is False and found[name].shape == (2, 3, 4, 5)
    assert runners['blocks'].work / runners['copy'].work == {'forward': 1, 'backward': 1.5, 'training': 2.5}[work]
    saved = {name: runner.memory()['saved_inputs'] for name, runner in runners.items() if name != 'copy'}
    assert saved['formula'] >= 4 and saved['blocks'] == pytest.approx(1 + 2 / 20)


def test_peak_memory() -> None:
    kept = torch.zeros(2**18)

    def run() -> None:
        first = torch.empty(2**18)  # 1 MiB
        second = kept + first  # 2
        del first
        torch.cat([second, second])  # 3

    assert peak_mib(run, torch.device('cpu')) == pytest.approx(3, abs=0.01)


def small(**changed: nets.Variant) -> dict[str, nets.Variant]:
    return {'plain': nets.named('resnet18'), 'simam': nets.named('resnet18_simam'), **changed}


def test_a_training_step_and_its_memory() -> None:
    runners = nets.training_runners(small(formula=nets.with_formula('resnet18', 0.1)), 2, 'cpu', size=64)
    memory = {}
    for name, runner in runners.items():
        with runner.around():
            runner.call()
        memory[name] = runner.memory()
    maps = sum(c * s * s for c, s in ((64, 16), (64, 16), (128, 8), (128, 8), (256, 4), (256, 4), (512, 2), (512, 2)))
    unit = 2 * 4 * maps / 2**20  # the maps that SimAM sees
    saved = {name: m['saved_mib'] for name, m in memory.items()}
    assert 2.9 < (saved['formula'] - saved['simam']) / unit < 3.1
    gradients = 4 * 11_689_512 / 2**20
    assert gradients < memory['plain']['peak_mib'] <= memory['simam']['peak_mib'] < memory['formula']['peak_mib']
    assert runners['simam'].work == 2


def test_the_nets_of_a_case_share_their_trunk_and_images() -> None:
    variants = small(formula=nets.with_formula('resnet18', 0.1))
    runners = nets.inference_runners(variants, 2, 'cpu', size=64)
    logits = {}
    for name, runner in runners.items():
        with runner.around():
            logits[name] = runner.call()
    torch.testing.assert_close(logits['simam'], logits['formula'], rtol=1e-3, atol=1e-3)
    assert (logits['simam'] - logits['plain']).abs().max() > 0.1 and logits['plain'].is_inference()


@pytest.mark.parametrize('layer', ['se', 'eca', 'cbam'])
def test_timms_layers_have_the_options_of_ours(layer: str) -> None:
    with torch.device('meta'):
        ours, theirs = (cases.RESNET50[name].build() for name in (layer, f'{layer}, timm'))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    kernels = [[m.kernel_size for m in net.modules() if isinstance(m, nn.Conv1d)] for net in (ours, theirs)]
    assert kernels[0] == kernels[1]


@pytest.mark.parametrize('name', ['resnet50_simam', 'resnet50_cbam', 'mobilenetv2_se'])
def test_no_map_is_so_small_or_large_that_it_costs_time(name: str) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name).eval()
    nets.randomise_norms(net)
    seen = []

    def check(module: nn.Module, inputs: Any, output: Any) -> None:
        if output.dim() == 4:
            seen.append(output.abs().max().item())
            assert 1e-3 < seen[-1] < 1e9, module
            assert not ((output != 0) & (output.abs() < torch.finfo(torch.float32).tiny)).any(), module

    for module in net.modules():
        module.register_forward_hook(check)
    with torch.inference_mode():
        net(torch.randn(1, 3, 96, 96))
    assert len(seen) > 50


def test_fused_and_compiled_nets() -> None:
    variants = small(fused=nets.fused('resnet18'), fused_simam=nets.fused('resnet18_simam'))
    logits = {name: r.call() for name, r in nets.inference_runners(variants, 1, 'cpu', size=64).items()}
    for name, fused in (('plain', 'fused'), ('simam', 'fused_simam')):
        torch.testing.assert_close(logits[fused], logits[name], rtol=1e-3, atol=1e-3)
    compiled = nets.compiled(nets.named('resnet18'))
    assert compiled.change is not None
    assert type(compiled.change(nn.Identity())).__name__ == 'OptimizedModule'


def variants_of(case: Case) -> list[str]:
    """From the table alone: nothing is built."""
    build: Any = case.build
    if build.func is operations.simam_runners:
        return ['formula', 'reference', 'blocks', 'simam', *(['copy'] if build.keywords.get('copy') else [])]
    return list(build.args[0])


def test_cases() -> None:
    assert len(set(NAMES)) == len(NAMES) and {case.device for case in all_cases()} == {'cpu', 'cuda'}
    for case in all_cases():
        assert case.reference in variants_of(case) and case.quick <= case.rounds and case.rounds >= LEAST_ROUNDS
    full = choose(quick=False, only='*', compiled=False)
    quick = choose(quick=True, only='*', compiled=True)
    assert set(quick) < set(full) and not any(case.compiled for case in full)
    assert {c for c in full if '/op/' in c.name and 'bandwidth' not in c.name and c.device == 'cpu'} < set(quick)
    assert {'cpu/resnet50/b1', 'cpu/fuse/b1'} < {c.name for c in quick}
    everything = choose(quick=False, only='*', compiled=True)
    assert {c.name for c in everything if c.compiled} == {n for n in NAMES if '/compiled/' in n}
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
        Case('cuda/resnet50/b1', 'GPU', dict, 'plain'),
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
    assert text.splitlines()[-2:] == [str(out), str(out.with_suffix('.json'))]
    assert {path.name for path in out.parent.iterdir()} == {'speed.png', 'speed.json'}
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
    assert len(told['targets']) == len(TARGETS)
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
    assert head.startswith('case,variant,reference,rounds,ms,') and out.is_file()


def test_a_run_of_some_cases_is_about_their_targets(
    tiny: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / 'speed.png'
    assert main(['--quick', '--only', 'cpu/op/*', '--threads', '1', '--output', str(out)]) == 0
    expected = [target.what for target in TARGETS if target.case.startswith('cpu/op/')]
    rows = [line.split(' | ')[0][2:] for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert rows[2:] == expected and len(expected) == 4  # below the heads
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


def test_the_commands_of_the_readme() -> None:
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    section = readme.split('## Speed')[1].split('\n## ')[0]
    command = 'python -m benchmarks '
    commands = [shlex.split(line, comments=True)[3:] for line in section.splitlines() if line.startswith(command)]
    assert [vars(parser().parse_args(argv))['quick'] for argv in commands] == [True]
    for glob in re.findall(r"--only '(.*?)'", section):
        assert choose(quick=True, only=glob, compiled=False)


def test_without_matplotlib(tiny: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main([]) == 1
    assert "Figures need matplotlib: pip install 'timm-attn[plots]'." in capsys.readouterr().err
