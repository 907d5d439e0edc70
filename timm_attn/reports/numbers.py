"""The numbers of a figure, in a file beside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from timm_attn.files import write_csv, write_json

Row = Mapping[str, Any]
WRITERS: Mapping[str, Any] = {'csv': write_csv, 'json': write_json}


def write_numbers(figure: Path, numbers: str, rows: Iterable[Row], about: Row | None = None) -> Path:
    """Writes rows of the same keys as 'csv' or 'json' beside a figure; the file appears only when it is complete.

    Args:
        about: what else a JSON file has; its rows are then under 'rows'. CSV has no place for it.

    Raises:
        ValueError: there is no such format.
        RuntimeError: the file cannot be written.
    """
    check_numbers(numbers)
    path, table = figure.with_suffix(f'.{numbers}'), list(rows)
    WRITERS[numbers](path, table if about is None or numbers == 'csv' else {**about, 'rows': table})
    return path


def check_numbers(numbers: str) -> None:
    """Raises ValueError where there is no such format."""
    if numbers not in WRITERS:
        raise ValueError(f'Unknown format of numbers {numbers!r}: choose from {", ".join(WRITERS)}.')
