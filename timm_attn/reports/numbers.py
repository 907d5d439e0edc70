"""The numbers of a figure, in a file beside it."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Row = Mapping[str, Any]


def write_numbers(figure: Path, numbers: str, rows: Iterable[Row]) -> Path:
    """Writes rows of the same keys as 'csv' or 'json' beside a figure; the file appears only when it is complete.

    Raises:
        ValueError: there is no such format.
    """
    table = list(rows)
    check_numbers(numbers)
    path = figure.with_suffix(f'.{numbers}')
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    try:
        with partial.open('w', newline='', encoding='utf-8') as f:
            WRITERS[numbers](f, table)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def check_numbers(numbers: str) -> None:
    """Raises ValueError where there is no such format."""
    if numbers not in WRITERS:
        raise ValueError(f'Unknown format of numbers {numbers!r}: choose from {", ".join(WRITERS)}.')


def _write_csv(f: IO[str], rows: Sequence[Row]) -> None:
    writer = csv.DictWriter(f, fieldnames=list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def _write_json(f: IO[str], rows: Sequence[Row]) -> None:
    json.dump(rows, f, indent=1)


WRITERS: Mapping[str, Callable[[IO[str], Sequence[Row]], None]] = {'csv': _write_csv, 'json': _write_json}
