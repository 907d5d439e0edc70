"""The numbers of a figure, in a file beside it."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from timm_attn.files import replacing

Row = Mapping[str, Any]


def write_numbers(figure: Path, numbers: str, rows: Iterable[Row], about: Row | None = None) -> Path:
    """Writes rows of the same keys as 'csv' or 'json' beside a figure; the file appears only when it is complete.

    Args:
        about: what else a JSON file says; its rows are then under 'rows'. CSV has no place for it.

    Raises:
        ValueError: there is no such format.
    """
    table = list(rows)
    check_numbers(numbers)
    path = figure.with_suffix(f'.{numbers}')
    text = io.StringIO(newline='')
    WRITERS[numbers](text, table, about)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
    return path


def check_numbers(numbers: str) -> None:
    """Raises ValueError where there is no such format."""
    if numbers not in WRITERS:
        raise ValueError(f'Unknown format of numbers {numbers!r}: choose from {", ".join(WRITERS)}.')


def _write_csv(f: IO[str], rows: Sequence[Row], about: Row | None) -> None:
    writer = csv.DictWriter(f, fieldnames=list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def _write_json(f: IO[str], rows: Sequence[Row], about: Row | None) -> None:
    json.dump(rows if about is None else {**about, 'rows': rows}, f, indent=1)


WRITERS: Mapping[str, Callable[[IO[str], Sequence[Row], Row | None], None]] = {'csv': _write_csv, 'json': _write_json}
