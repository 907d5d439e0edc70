"""Peak memory of a call, in MiB."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def peak_mib(run: Callable[[], Any], device: torch.device) -> float:
    """The peak of torch's allocator during a call, beyond what was allocated before.

    On CUDA by max_memory_allocated, on the CPU by the allocations and frees that torch's profiler records; what a
    library takes past the allocator is in neither. Weights and the optimizer's state were there before.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # else the profiler logs its start and stop to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, 'trace.json')
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding='utf-8'))['traceEvents']
    return max((e['args']['Total Allocated'] for e in events if e['name'] == '[memory]'), default=0) / MIB
