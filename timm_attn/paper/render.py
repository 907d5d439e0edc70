"""The comparison as text."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from timm_attn.files import csv_text, json_text
from timm_attn.paper.compare import Cell, Verdict, printed, rows

_SIGNS: Mapping[Verdict, str] = {'ticked': '✓', 'ticked with': '✓ with', 'crossed': '✗', 'not printed': 'not printed'}


def tables(format: str = 'md', table: str | None = None) -> str:
    """The text of `timm-attn paper`: one table, such as 'BAM 4', or all, as 'md', 'json' or 'csv'.

    Raises:
        ValueError: there is no such format or table.
    """
    if format not in FORMATS:
        raise ValueError(f'Unknown format {format!r}: choose from {", ".join(FORMATS)}.')
    return FORMATS[format](rows(table))


def summary(cells: Sequence[Cell]) -> str:
    """How many cells have which verdict."""
    n = Counter(cell.verdict for cell in cells)
    known = f'{n["ticked"]} ticked, {n["ticked with"]} ticked with another structure, {n["crossed"]} crossed'
    silent = f'; {n["not printed"]} that the papers do not print' if n['not printed'] else ''
    return f'{len(cells) - n["not printed"]} figures: {known}{silent}'


def _markdown(cells: Sequence[Cell]) -> str:
    lines = []
    for table in printed()['tables']:
        mine = [cell for cell in cells if cell.table == table['id']]
        if mine:
            lines += [f'## {table["id"]}: {table["title"]}', '', f'{table["paper"]}.', '']
            lines += ['| row | figure | printed | ours | |', '| --- | --- | ---: | ---: | --- |']
            lines += [f'| {c.row} | {c.quantity} | {c.printed} | {_counts(c)} | {_verdict(c)} |' for c in mine] + ['']
    return '\n'.join([*lines, summary(cells)])


def _counts(cell: Cell) -> str:
    """The models and their counts, those of equal counts together."""
    models: dict[float, list[str]] = {}
    for model, n in cell.ours.items():
        models.setdefault(n, []).append(f'`{model}`')
    return '; '.join(f'{", ".join(names)} {n:,}' for n, names in models.items())


def _verdict(cell: Cell) -> str:
    """A sign and the note, and which models fit where there are several."""
    which = ', '.join(f'`{model}`' for model in cell.fits) if len(cell.ours) > 1 else ''
    return ' '.join(filter(None, (_SIGNS[cell.verdict], cell.note, f'({which})' if which else '')))


def _json(cells: Sequence[Cell]) -> str:
    return json_text([asdict(cell) for cell in cells]).rstrip('\n')


def _csv(cells: Sequence[Cell]) -> str:
    """One line per cell; several models or counts are separated by blanks."""
    return csv_text([_row(c) for c in cells]).rstrip('\n')


def _row(cell: Cell) -> dict[str, object]:
    row = {key: getattr(cell, key) for key in ('table', 'row', 'column', 'printed', 'quantity')}
    counts = dict(models=' '.join(cell.ours), ours=' '.join(map(str, cell.ours.values())))
    return {**row, **counts, 'verdict': cell.verdict, 'fits': ' '.join(cell.fits), 'note': cell.note}


FORMATS: Mapping[str, Callable[[Sequence[Cell]], str]] = {'md': _markdown, 'json': _json, 'csv': _csv}
