"""The comparison as text."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from timm_attn.paper.compare import Cell, Verdict, printed, rows

_SIGNS: Mapping[Verdict, str] = {'ticked': '✓', 'ticked with': '✓ with', 'crossed': '✗'}


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
    verdicts = Counter(cell.verdict for cell in cells)
    ticked, structure, crossed = (verdicts[verdict] for verdict in _SIGNS)
    return f'{len(cells)} figures: {ticked} ticked, {structure} ticked with another structure, {crossed} crossed'


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
    models: dict[int, list[str]] = {}
    for model, n in cell.ours.items():
        models.setdefault(n, []).append(f'`{model}`')
    return '; '.join(f'{", ".join(names)} {n:,}' for n, names in models.items())


def _verdict(cell: Cell) -> str:
    """A sign and the note, and which models fit where there are several."""
    which = ', '.join(f'`{model}`' for model in cell.fits) if len(cell.ours) > 1 else ''
    return ' '.join(filter(None, (_SIGNS[cell.verdict], cell.note, f'({which})' if which else '')))


def _json(cells: Sequence[Cell]) -> str:
    return json.dumps([asdict(cell) for cell in cells], indent=1, ensure_ascii=False)


def _csv(cells: Sequence[Cell]) -> str:
    """One line per cell; several models or counts are separated by blanks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['table', 'row', 'column', 'printed', 'quantity', 'models', 'ours', 'verdict', 'fits', 'note'])
    for c in cells:
        place = [c.table, c.row, c.column, c.printed, c.quantity]
        ours = [' '.join(c.ours), ' '.join(map(str, c.ours.values()))]
        writer.writerow([*place, *ours, c.verdict, ' '.join(c.fits), c.note])
    return text.getvalue().rstrip('\n')


FORMATS: Mapping[str, Callable[[Sequence[Cell]], str]] = {'md': _markdown, 'json': _json, 'csv': _csv}
