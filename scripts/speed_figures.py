#!/usr/bin/env python3
"""Draws docs/gallery/benchmark_*.png from the numbers in results/benchmark/."""

import json
from pathlib import Path

from benchmarks.pictures import draw

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    for numbers in sorted((ROOT / 'results' / 'benchmark').glob('*.json')):
        run = json.loads(numbers.read_text(encoding='utf-8'))
        out = ROOT / 'docs' / 'gallery' / 'benchmark.png'
        for path in draw(out, run['environment'], run['targets'], run['rows']):
            print(path.relative_to(ROOT))


if __name__ == '__main__':
    main()
