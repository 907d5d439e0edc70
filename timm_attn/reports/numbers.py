"""The numbers of a figure, in a file beside it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timm_attn.files import write_csv, write_json

Row = Mapping[str, Any]
FORMATS = ('csv', 'json')


def write_numbers(
    figure: Path, numbers: str, rows: Iterable[Row], about: Row | None = None, columns: Sequence[str] | None = None
) -> Path:
    """Writes rows of the same keys as 'csv' or 'json' beside a figure; the file appears only when it is complete.

    Args:
        about: what else a JSON file has; its rows are then under 'rows'. CSV has no place for it.
        columns: of CSV, where there may be no rows.

    Raises:
        ValueError: there is no such format.
        RuntimeError: the file cannot be written.
    """
    check_numbers(numbers)
    path, table = figure.with_suffix(f'.{numbers}'), list(rows)
    if numbers == 'csv':
        write_csv(path, table, columns)
    else:
        write_json(path, table if about is None else {**about, 'rows': table})
    return path


def check_numbers(numbers: str) -> None:
    """Raises ValueError where there is no such format."""
    if numbers not in FORMATS:
        raise ValueError(f'Unknown format of numbers {numbers!r}: choose from {", ".join(FORMATS)}.')
