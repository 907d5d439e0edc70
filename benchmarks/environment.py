"""The machine, the versions and the time of a measurement."""

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import timm
import torch

from timm_attn import __version__


def environment(threads: int) -> dict[str, Any]:
    """Date (UTC), CPU, its vector instructions, usable cores, torch's threads, GPU or None, versions, load."""
    return {
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'cpu': cpu_name(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'cores': cores(),
        'threads': threads,
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'timm': timm.__version__,
        'timm_attn': __version__,
        'load_before': load_average(),
    }


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> list[float] | None:
    """The load average of the last 1, 5 and 15 minutes; None where the system has none."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, 'getloadavg') else None


def cpu_name() -> str:
    """The CPU's name from /proc/cpuinfo, elsewhere from Python's platform."""
    listing = Path('/proc/cpuinfo')
    if listing.is_file():
        for line in listing.read_text(encoding='utf-8', errors='replace').splitlines():
            key, _, value = line.partition(':')
            if key.strip() == 'model name':
                return value.strip()
    return platform.processor() or platform.machine()
