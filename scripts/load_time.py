#!/usr/bin/env python3
"""Times loading a verified checkpoint against timm's loading of the same file and one sha256 pass.

The file is a resnet50_simam of random weights (102 MB), imported like an upstream checkpoint. Runs are
interleaved; medians of several rounds in one process.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NAME, ROUNDS = 'resnet50_simam', 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ['TIMM_ATTN_HOME'] = folder
        import timm
        import torch

        import timm_attn  # noqa: F401
        from timm_attn.weights.importing import import_checkpoint
        from timm_attn.weights.store import file_digest

        torch.save(timm.create_model(NAME).state_dict(), Path(folder, 'x.pth'))
        file = import_checkpoint(NAME, Path(folder, 'x.pth'))
        plain = {'file': str(file), 'num_classes': 1000}
        runs: dict[str, Callable[[], object]] = {
            'timm: resnet50 from the file': lambda: timm.create_model(
                'resnet50', pretrained=True, pretrained_cfg_overlay=plain
            ),
            f'timm_attn: {NAME}, verified': lambda: timm.create_model(NAME, pretrained=True),
            'one sha256 pass': lambda: file_digest(file),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(1000 * (time.perf_counter() - start))
        for name, values in times.items():
            low, median, high = min(values), statistics.median(values), max(values)
            print(f'{name}: {median:.0f} ms (median of {ROUNDS}, {low:.0f} to {high:.0f})')


if __name__ == '__main__':
    main()
