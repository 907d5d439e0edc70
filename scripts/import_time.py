#!/usr/bin/env python3
"""Times `import timm_attn` after `import timm`: the fastest of five fresh processes (noise only slows), in ms."""

import os
import subprocess
import sys

LIMIT_MS = 50
CODE = """
import time, timm
start = time.perf_counter()
import timm_attn
print(1000 * (time.perf_counter() - start))
"""


def main() -> int:
    # users have compiled files; without them the first process alone would compile
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONDONTWRITEBYTECODE'}
    command = [sys.executable, '-c', CODE]
    subprocess.check_output(command, env=env)
    runs = [float(subprocess.check_output(command, env=env, text=True)) for _ in range(5)]
    fastest = min(runs)
    print(f'import timm_attn: {fastest:.0f} ms, of {", ".join(f"{r:.0f}" for r in runs)} (limit {LIMIT_MS})')
    return int(fastest > LIMIT_MS)


if __name__ == '__main__':
    sys.exit(main())
