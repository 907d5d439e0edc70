"""The command `python -m benchmarks`: one run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import benchmark
from timm_attn.cli import in_one_line

PICTURES = 'of the pictures, one per kind: benchmark_nets.png, ...; default: %(default)s'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it; the exit status."""
    return in_one_line('benchmarks', lambda: _run(parser().parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    options = dict(quick=args.quick, only=args.only, threads=args.threads, compiled=args.compile, engines=args.engines)
    print('\n'.join(map(str, benchmark(args.output, numbers=args.numbers, **options))))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description="Our nets, timm's layers and the paper's formula beside the plain nets.",
    )
    made.add_argument('--quick', action='store_true', help='a minute on 2 cores instead of ten')
    made.add_argument('--compile', action='store_true', help='also under torch.compile; minutes more')
    made.add_argument('--engines', action='store_true', help='also in onnxruntime, OpenVINO and others; 20 minutes')
    made.add_argument('--only', default='*', metavar='GLOB', help="cases by their names, such as 'cpu/op/*'")
    made.add_argument('--threads', type=int, metavar='N', help="torch's on the CPU; default: one per core")
    made.add_argument('--output', type=Path, metavar='FILE', default=Path('benchmark.png'), help=PICTURES)
    made.add_argument('--numbers', choices=('json', 'csv'), default='json', help='beside it; default: %(default)s')
    return made


if __name__ == '__main__':
    sys.exit(main())
