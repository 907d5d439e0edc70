"""Freed memory stays with the process where glibc is told so, and nowhere else."""

import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from timm_attn.cli import main
from timm_attn.training import memory

# the share of pages, of six tensors made and freed again and again, that the kernel cleared anew (fewer where it makes
# huge ones); and another thread can still allocate
FAULTS = """
import resource, threading, torch
from timm_attn.training.memory import keep_freed_memory
print(keep_freed_memory())
def steps(n):
    for _ in range(n):
        sum([torch.ones(2**24), torch.ones(2**24), torch.ones(2**24)])
steps(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(10)
pages = 10 * 6 * 2**26 / resource.getpagesize()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / pages)
thread = threading.Thread(target=steps, args=[1])
thread.start()
thread.join()
"""

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')


def faults(**variables: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_') and k != 'GLIBC_TUNABLES'}
    env = {**kept, 'OMP_NUM_THREADS': '1', **variables}
    done = subprocess.run([sys.executable, '-c', FAULTS], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@on_glibc
def test_freed_memory_is_used_again() -> None:
    told, share = faults()
    assert told == 'True' and float(share) < 0.25  # 0 to 0.07 were seen


@on_glibc
@pytest.mark.parametrize('name', ['MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES'])
def test_what_the_environment_says_is_left_alone(name: str) -> None:
    value = 'glibc.malloc.mmap_threshold=65536' if name == 'GLIBC_TUNABLES' else '65536'
    assert faults(**{name: value})[0] == 'False'


def test_another_c_library_is_left_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(memory.platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda name: pytest.fail('the C library was opened'))
    assert not memory.keep_freed_memory()


@pytest.mark.parametrize('command', ['train', 'sweep', 'validate'])
def test_the_commands_keep_it(command: str, monkeypatch: Any, tmp_path: Any) -> None:
    called: list[bool] = []
    monkeypatch.setattr(memory, 'keep_freed_memory', lambda: called.append(True))
    options = ['--config', 'nowhere', '--model', 'resnet18_se', '--data-dir', str(tmp_path)]
    if command != 'validate':
        options += ['--output', str(tmp_path / 'out')]
    if command == 'sweep':
        options += ['--attn-kwarg', 'reduction', '--values', '8']
    assert main([command, *options]) == 1 and called == [True]
