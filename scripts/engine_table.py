#!/usr/bin/env python3
"""Every attention in every installed engine: results/deploy/engines.json, and its table in docs/engines.md.

    python scripts/engine_table.py [--engines NAME ...]

Engines that are not installed keep the result of an earlier run, so that those which need other versions of a package
can be run with another Python. The extra `deploy` has some of them; the others are packages of their own names.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from engine_cells import EXAMPLE, LARGEST_DIFFERENCE, LEAST_SIGNAL, NETS, OTHERS, Cell, cell
from engines import ENGINES

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TABLE = ROOT / 'results' / 'deploy' / 'engines.json', ROOT / 'docs' / 'engines.md'
HEAD = f"""# Engines

Small nets with each attention, in the engines that nets are deployed to, against torch in float32 on the CPU. Made by
`python scripts/engine_table.py`.

Numbers are the largest difference of a logit relative to the largest logit; up to {LARGEST_DIFFERENCE:g} it works.
With INT8 they are the signal to noise in dB; from {LEAST_SIGNAL:g} it works. They are of the worst of three inputs:
{EXAMPLE}, for which the net was converted, {OTHERS[0]} and {OTHERS[1]}. Engines with "one size" run the first alone.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--engines', nargs='+', choices=list(ENGINES), default=list(ENGINES), metavar='NAME')
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in parser.parse_args().engines:
        missing = ENGINES[name].missing()
        if missing:
            print(f'{name}: not installed: {", ".join(missing)}')
            continue
        results[name] = row(name)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        results = {key: results[key] for key in ENGINES if key in results}
        RESULTS.write_text(json.dumps(results, indent=1) + '\n')
    TABLE.write_text(table(results))


def row(name: str) -> dict[str, Any]:
    """The cells of an engine, in a process of their own: an engine may take its process down."""
    cells: dict[str, Cell] = {}
    while len(cells) < len(NETS):
        with ProcessPoolExecutor(1, get_context('spawn'), initializer=torch.set_num_threads, initargs=(1,)) as process:
            for net in NETS[len(cells) :]:
                try:
                    cells[net] = process.submit(_cell_of, name, net).result()
                except BrokenProcessPool:
                    cells[net] = Cell(False, None, 'the process died')
                    break
                finally:
                    print(f'{name}, {net}: {cells[net]}', flush=True)
    machine = f'{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}'
    about = {'date': str(date.today()), 'versions': ENGINES[name].versions(), 'machine': machine}
    return {**about, 'cells': {net: found._asdict() for net, found in cells.items()}}


def _cell_of(engine: str, net: str) -> Cell:
    return cell(ENGINES[engine], net)


def table(results: Mapping[str, Any]) -> str:
    """The results as a page of Markdown."""
    reasons: list[str] = []
    lines = [f'| engine | {" | ".join(NETS)} |', '|---' * (len(NETS) + 1) + '|']
    for name, engine in ENGINES.items():
        title = name if engine.any_size else f'{name}, one size'
        cells = results[name]['cells'] if name in results else {}
        lines.append(f'| {title} | {" | ".join(_said(cells.get(net), engine.int8, reasons) for net in NETS)} |')
    notes = [f'{i}. {reason}' for i, reason in enumerate(reasons, 1)]
    run = [
        f'- {name}: {row["date"]}, {row["machine"]}, {", ".join(" ".join(pair) for pair in row["versions"].items())}'
        for name, row in results.items()
    ]
    return '\n'.join([HEAD, *lines, '', *notes, '', 'Dates, processors and versions of the runs:', '', *run, ''])


def _said(found: Mapping[str, Any] | None, int8: bool, reasons: list[str]) -> str:
    if found is None:
        return 'not run'
    if not found['works']:
        if found['note'] not in reasons:
            reasons.append(found['note'])
        return f'**fails** ({reasons.index(found["note"]) + 1})'
    value = f'{found["value"]:.0f} dB' if int8 else f'{found["value"]:.0e}' if found['value'] else '0'
    return f'{value} {found["note"]}'.strip()


if __name__ == '__main__':
    main()
