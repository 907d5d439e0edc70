"""Commands as tests run them: in this process by the console command, or in one of their own."""

import os
import subprocess
from pathlib import Path

import pytest

from timm_attn.cli import main

ROOT = Path(__file__).resolve().parents[2]


def run_cli(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """What `timm-attn ARGV...` prints; it must succeed."""
    assert main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def fail_cli(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line of a `timm-attn ARGV...` that must fail."""
    assert main([str(a) for a in argv]) == 1
    captured = capsys.readouterr()
    assert captured.out == '' and captured.err.startswith('timm-attn: ') and captured.err.count('\n') == 1
    return captured.err


def start(*command: object, **variables: object) -> subprocess.CompletedProcess[str]:
    """Runs a command at the root of the repository, in an environment that has this package and the tests' modules."""
    paths = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1', **{k: str(v) for k, v in variables.items()}}
    return subprocess.run([*map(str, command)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def run(*command: object, **variables: object) -> str:
    """The same for a command that must succeed; what it prints."""
    done = start(*command, **variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr
