"""Run timm's own model tests on the models that timm_attn registers.

    python scripts/timm_suite.py                                  # all models that importing timm_attn adds
    python scripts/timm_suite.py --models 'resnet50_*' --fixed    # some of them, more of timm's tests
    python scripts/timm_suite.py --extra                          # tests/support/timm_extra.py instead of timm's tests
    python scripts/timm_suite.py --known 'test_forward_after_prune*_bam*'   # run and listed, but no error

The tests come from the sdist of the installed timm version, downloaded once. They parametrize themselves over
timm.list_models() while being imported; a pytest plugin in this process narrows that function to our models.
Every (test, model) cell ends as passed, failed, known to fail, skipped or not run, and all but the passed are listed.
The last line is 'N passed, N failed[, N known to fail][, N skipped][, N not run]'.
Exit status 0 only when nothing failed, was skipped or was not run.
"""

import argparse
import fnmatch
import importlib
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

os.environ.pop('GITHUB_ACTIONS', None)  # timm drops its fx and TorchScript tests where it is set
os.environ.update(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1', PYTEST_ADDOPTS='', PYTEST_DISABLE_PLUGIN_AUTOLOAD='1')

import numpy as np
import pytest
import timm
import torch

EXTRA_TESTS = Path(__file__).resolve().parents[1] / 'tests' / 'support' / 'timm_extra.py'
CACHE = Path.home() / '.cache' / 'timm_attn' / 'timm_tests'

# Generic tests that timm runs on a fixed list of models, --fixed on ours -> what follows the model name in a row.
FIXED: dict[str, tuple[Any, ...]] = {
    'test_reset_classifier_keeps_pool': (),
    'test_features_only_grad_checkpointing_backward': (),
    'test_prune_intermediate_layers_params_used': (),
    'test_prune_to_stem_feature': (),
    'test_forward_after_prune_intermediate_layers': (),
    'test_head_hidden_size': ({},),
    'test_prune_intermediate_layers_last_feature': (True,),
    'test_model_features_output_stride': (),
    'test_model_forward_torchscript_with_features_fx': (),
}

# Tests over timm.list_models() that are not for our models -> why.
INAPPLICABLE = {
    'test_model_default_cfgs_non_std': 'transformer-like models only; test_model_default_cfgs runs instead',
    'test_model_features_space2depth_reduction': 'efficientnet_[hx]_* only',
    'test_model_load_pretrained': 'downloads weights',
    'test_model_features_pretrained': 'downloads weights',
}

# A FutureWarning is how timm says that something ends; TorchScript's end is torch's, and timm still tests it.
WARNINGS = ('ignore', 'error::FutureWarning', 'ignore:`torch.jit.:FutureWarning')

FILTERED = 'left out by a filter of the test (no default cfg of its name, or an excluded name)'
STATUSES = ('passed', 'failed', 'known to fail', 'skipped', 'not run')  # in the order of the last line


class Cell(NamedTuple):
    """What became of one test on one model, and what it cost."""

    status: str
    reason: str
    cpu_seconds: float = 0.0


class ModelList(list[str]):
    """What the narrowed timm.list_models returns, to tell the tests of every model from those of fixed ones."""


class Suite:
    """The pytest plugin: parametrizes timm's tests by our models, seeds each test, records what became of each cell."""

    def __init__(self, models: Sequence[str], fixed: bool, known: Sequence[str]) -> None:
        self.models = models
        self.known = known
        self.fixed = FIXED if fixed else {}
        self.missing = set(self.fixed)
        self.left_out: Counter[str] = Counter()
        self.cells: dict[str, Cell] = {}
        self.started = 0.0

    def list_models(self, filter: Any = '', module: Any = '', *args: Any, **kwargs: Any) -> ModelList:
        """timm.list_models for our models; `module` is ignored: it names timm's modules, ours would vanish silently."""
        names = timm.models.list_models(filter, '', *args, **kwargs)
        return ModelList(name for name in names if name.partition('.')[0] in self.models)

    def rows(self, test: str, mark: pytest.Mark) -> list[Any] | None:
        """Parameter rows of one mark for our models; None where the mark does not list models, or not for us."""
        if mark.name != 'parametrize' or 'model_name' not in re.findall(r'\w+', str(mark.args[0])):
            return None
        if isinstance(mark.args[1], ModelList) and test not in INAPPLICABLE:
            kept = {name.partition('.')[0] for name in mark.args[1]}  # names may carry a tag: resnet18.a1_in1k
            lost = [model for model in self.models if model not in kept]
            return [*mark.args[1], *(pytest.param(model, marks=pytest.mark.skip(reason=FILTERED)) for model in lost)]
        if test in self.fixed:
            self.missing.discard(test)
            return [(model, *FIXED[test]) if FIXED[test] else model for model in self.models]
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, name: str, obj: Any) -> list[Any] | None:
        """Give a test our models, or collect nothing from it ([]); None leaves the rest to pytest."""
        if not (name.startswith('test_') and callable(obj)):
            return None
        marks = list(getattr(obj, 'pytestmark', []))
        for i, mark in enumerate(marks):
            rows = self.rows(name, mark)
            if rows is not None:
                marks[i] = pytest.mark.parametrize(mark.args[0], rows).mark
                obj.pytestmark = marks
                return None
        self.left_out[f'{name}: {INAPPLICABLE[name]}' if name in INAPPLICABLE else "tests of timm's own models"] += 1
        return []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """What -k leaves out was asked for: no error, but said."""
        self.left_out['a cell: -k'] += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported has no cells, so it becomes one."""
        if report.failed:
            self.cells[f'collection of {report.nodeid}'] = Cell('failed', str(report.longrepr).splitlines()[-1])

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """A test that is known to fail runs all the same, but its traceback would hide those of others."""
        for item in items:
            if any(is_like(item.nodeid.partition('::')[2], glob) for glob in self.known):
                item.add_marker(pytest.mark.xfail)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Every cell starts as not run, so that none is lost when the run ends early."""
        absent = (f'{test}[{model}]' for test in sorted(self.missing) for model in self.models)
        self.cells.update(dict.fromkeys(absent, Cell('not run', 'no such test in this version of timm')))
        collected = (item.nodeid.partition('::')[2] for item in session.items)
        self.cells.update(dict.fromkeys(collected, Cell('not run', 'the run ended before it')))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """The same random numbers for a test, whatever ran before it."""
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        self.started = time.process_time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of the call, or of the set-up or clean-up where that one went wrong."""
        name = report.nodeid.partition('::')[2]
        if report.when == 'call' or not report.passed:
            self.cells[name] = cell_of(report)
        self.cells[name] = self.cells[name]._replace(cpu_seconds=round(time.process_time() - self.started, 2))


def is_like(cell: str, glob: str) -> bool:
    """Whether a glob of --known means a cell; its brackets are those of a test id."""
    return fnmatch.fnmatch(cell, glob.replace('[', '[[]'))


def cell_of(report: pytest.TestReport) -> Cell:
    """The cell that a pytest report stands for, its reason on one line of bounded length."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[-1].removeprefix('Skipped: ')
        return Cell('not run' if reason == FILTERED else 'skipped', reason)
    crash = getattr(report.longrepr, 'reprcrash', None)
    reason = crash.message if crash else str(report.longrepr or '')
    outcome = 'known to fail' if report.skipped else report.outcome
    return Cell(outcome, ' '.join(reason.split())[:300])


def unpack_tests(folder: Path) -> None:
    """Download the tests of the installed timm; `folder` appears only when it is complete."""
    pip = f'-m pip download --disable-pip-version-check --no-deps --no-binary timm timm=={timm.__version__} -d'.split()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        subprocess.run([sys.executable, *pip, scratch], check=True, capture_output=True, text=True)
        sdist = Path(scratch, f'timm-{timm.__version__}')
        with tarfile.open(f'{sdist}.tar.gz') as archive:
            archive.extractall(scratch, filter='data')
        (sdist / 'tests').rename(folder)


def model_tests(cache: Path) -> Path:
    """The file of timm's model tests, of exactly the installed version."""
    folder = cache / f'timm-{timm.__version__}' / 'tests'
    try:
        if not folder.is_dir():
            unpack_tests(folder)
    except (OSError, subprocess.CalledProcessError, tarfile.TarError) as error:
        if not folder.is_dir():  # else another process was first
            why = (getattr(error, 'stderr', '') or str(error)).strip().splitlines()[-1]
            sys.exit(f'cannot get the sdist of timm {timm.__version__} ({why}); or unpack its tests folder to {folder}')
    return folder / 'test_models.py'


def added_models(package: str) -> list[str]:
    """The models that importing `package` adds to timm."""
    before = set(timm.list_models())
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        sys.exit(f'no package {package!r}: install it or set PYTHONPATH')
    return [model for model in timm.list_models() if model not in before]


def select(globs: Sequence[str], added: Sequence[str], shard: str) -> list[str]:
    """Shard 'i/n' of the models that match; a glob names timm's own models only where it matches none added."""
    chosen = set() if globs else set(added)
    for glob in globs:
        found = fnmatch.filter(added, glob) or fnmatch.filter(timm.list_models(), glob)
        if not found:
            sys.exit(f'no registered model matches {glob!r}')
        chosen.update(found)
    match = re.fullmatch(r'(\d+)/(\d+)', shard)
    if not match or int(match[1]) >= int(match[2]):
        sys.exit(f'--shard must be i/n with 0 <= i < n, but is {shard!r}')
    part = [model for model in timm.list_models() if model in chosen][int(match[1]) :: int(match[2])]
    return part or sys.exit(f'no model to test: shard {shard} of {len(chosen)} selected models')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--package', default='timm_attn', help="whose import registers the models ('timm': nothing)")
    parser.add_argument('--models', nargs='+', default=[], metavar='GLOB', help='default: all that the package adds')
    tests = parser.add_mutually_exclusive_group()
    tests.add_argument('--fixed', action='store_true', help="also timm's generic tests of fixed models, on our models")
    tests.add_argument('--extra', action='store_true', help=f"tests/support/{EXTRA_TESTS.name} instead of timm's tests")
    parser.add_argument('--known', nargs='+', default=[], metavar='GLOB', help='test ids whose failure is known')
    parser.add_argument('--shard', default='0/1', metavar='I/N', help='every N-th model, from the I-th (0-based) on')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write every cell and its CPU seconds to FILE')
    parser.add_argument('--cache', type=Path, default=CACHE, help="where timm's tests are kept")
    parser.add_argument('-k', default='', metavar='EXPR', help="pytest's -k")
    parser.add_argument('-x', action='store_true', help='stop at the first failure')
    parser.add_argument('-v', action='store_true', help='one line per test')
    return parser.parse_args()


def run_pytest(file: Path, suite: Suite, args: argparse.Namespace) -> int:
    """Run the file's tests in this process, out of reach of any pytest configuration; nothing is written beside it."""
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    argv = [str(file), '-c', os.devnull, '--rootdir', str(file.parent), '--noconftest', '--import-mode=importlib']
    argv += ['-p', 'no:cacheprovider', '--tb=short', '-rN', '-v' if args.v else '-q', '-k', args.k]
    argv += [part for rule in WARNINGS for part in ('-W', rule)]
    with mock.patch.object(timm, 'list_models', suite.list_models):
        return int(pytest.main(argv + ['-x'] * args.x, plugins=[suite]))


def summary(suite: Suite) -> str:
    """List what was left out and every cell that did not pass; the counts, to be printed as the last line."""
    for glob in suite.known:
        if not any(is_like(name, glob) and cell.status == 'known to fail' for name, cell in suite.cells.items()):
            print(f'note: --known {glob!r} matches no failure')
    for what, count in suite.left_out.items():
        print(f'note: left out {count} x {what}')
    for name, cell in sorted(suite.cells.items(), key=lambda item: STATUSES.index(item[1].status)):
        if cell.status != 'passed':
            print(f'{cell.status.upper()} {name}: {cell.reason}')
    counts = Counter(cell.status for cell in suite.cells.values())
    return ', '.join(f'{counts[status]} {status}' for status in STATUSES if counts[status] or status in STATUSES[:2])


def main() -> int:
    """Run the tests that the command line asks for, report every cell; the exit status."""
    args = parse_args()
    models = select(args.models, added_models(args.package), args.shard)
    file = EXTRA_TESTS if args.extra else model_tests(args.cache)
    print(f'timm {timm.__version__}, torch {torch.__version__}, {len(models)} models: {", ".join(models)}', flush=True)
    suite = Suite(models, args.fixed, args.known)
    code = run_pytest(file, suite, args)
    broken = code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if broken:
        print(f'pytest ended with {pytest.ExitCode(code)!r}', file=sys.stderr, flush=True)
    print(summary(suite))
    if args.json:
        args.json.write_text(json.dumps({'models': models, 'cells': suite.cells}, indent=1) + '\n')
    return int(broken or any(cell.status not in ('passed', 'known to fail') for cell in suite.cells.values()))


if __name__ == '__main__':
    sys.exit(main())
