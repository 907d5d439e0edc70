#!/usr/bin/env python3
"""Times `import timm_attn` beside `import timm`, once torch is there: the fastest of five fresh processes (noise only
slows). Both read and run Python files, so their ratio is the same on a slow machine."""

import os
import subprocess
import sys

LIMIT = 0.2  # of timm's time
CODE = """
import time, torch, torchvision
start = time.perf_counter()
import timm
middle = time.perf_counter()
import timm_attn
print(middle - start, time.perf_counter() - middle)
"""


def main() -> int:
    # users have compiled files; without them the first process alone would compile
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONDONTWRITEBYTECODE'}
    command = [sys.executable, '-c', CODE]
    subprocess.check_output(command, env=env)
    runs = [subprocess.check_output(command, env=env, text=True).split() for _ in range(5)]
    timm, ours = (min(map(float, seconds)) for seconds in zip(*runs, strict=True))
    print(f'import timm_attn: {1000 * ours:.0f} ms, {ours / timm:.2f} of import timm (limit {LIMIT})')
    return int(ours > LIMIT * timm)


if __name__ == '__main__':
    sys.exit(main())
