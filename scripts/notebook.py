#!/usr/bin/env python3
"""Runs docs/quickstart.ipynb in its folder and writes its outputs into it; --check runs it and writes nothing."""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / 'docs' / 'quickstart.ipynb'


def main() -> None:
    start = time.perf_counter()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={'metadata': {'path': str(NOTEBOOK.parent)}}).execute()
    print(f'{NOTEBOOK.name} ran in {time.perf_counter() - start:.0f} s')
    if '--check' in sys.argv:
        return
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)  # times, which would differ at every run
        if cell.cell_type == 'code':
            cell.outputs = [output for output in cell.outputs if output.get('name') != 'stderr']
    nbformat.write(notebook, NOTEBOOK)


if __name__ == '__main__':
    main()
