"""Compares every number of printed.json with our nets."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from timm_attn.paper.counted import CountedNet, count, layer_params
from timm_attn.paper.printed import UNITS, Printed, parse_figure, parse_formula

Record = Mapping[str, Any]  # an object of printed.json
Verdict = Literal['ticked', 'ticked with', 'crossed']


@dataclass(frozen=True)
class Cell:
    """A printed number and our count.

    Args:
        table, row, column, printed: the place and the text of the number.
        quantity: our counting convention, a key of counted.COUNTS, or 'extra ' and such a key: more than the plain net.
        ours: the count of each of our models for the row.
        verdict: 'ticked' if one of them rounds to the figure, 'ticked with' if it does so with another structure.
        fits: the models that do.
        note: that structure, or the reason why none does.
    """

    table: str
    row: str
    column: str
    printed: str
    quantity: str
    ours: Mapping[str, int]
    verdict: Verdict
    fits: tuple[str, ...]
    note: str


@cache
def printed() -> Record:
    """printed.json: tables of rows, whose figures are the values of the table's columns.

    A row names our models, or an attention layer. Where those do not fit, `structure` names one of `structures` to try;
    `why` gives one of `reasons` for each number that does not fit.
    """
    data: Record = json.loads(files(__package__).joinpath('printed.json').read_text(encoding='utf-8'))
    return data


def table_ids() -> list[str]:
    """'SimAM 1' and so on, in the order of the papers."""
    return [table['id'] for table in printed()['tables']]


def rows(table: str | None = None) -> list[Cell]:
    """The cells of one table, or of all.

    Raises:
        ValueError: there is no such table.
    """
    if table is not None and table not in table_ids():
        raise ValueError(f'Unknown table {table!r}: choose from {", ".join(table_ids())}.')
    return [cell for record in printed()['tables'] if table in (None, record['id']) for cell in _cells(record)]


def _cells(table: Record) -> Iterator[Cell]:
    for row in table['rows']:
        for column in table['columns']:
            if column in row:
                yield _compare(table, row, column)


def _compare(table: Record, row: Record, column: str) -> Cell:
    """The models as they are, then with the row's structure; a cross shows the last count."""
    figure, how = _figure(table, row, column), table['columns'][column]
    verdict: Verdict = 'crossed'
    for structure in _structures(row):
        ours = _ours(table, row, how, structure)
        fits = tuple(model for model, n in ours.items() if figure.fits(n))
        if fits:
            verdict = 'ticked with' if structure else 'ticked'
            break
    note = structure.get('title', '') if fits else _reason(row, column)
    quantity = f'extra {how["quantity"]}' if how.get('extra') else how['quantity']
    return Cell(table['id'], row['row'], column, row[column], quantity, ours, verdict, fits, note)


def _structures(row: Record) -> list[Record]:
    return [{}, printed()['structures'][row['structure']]] if 'structure' in row else [{}]


def _reason(row: Record, column: str) -> str:
    key = row.get('why', {}).get(column)
    return printed()['reasons'][key] if key else ''


def _figure(table: Record, row: Record, column: str) -> Printed:
    if 'layer' in row:
        return parse_formula(row[column], row['symbols'])
    return parse_figure(row[column], table.get('units', UNITS))


def _ours(table: Record, row: Record, how: Record, structure: Record) -> dict[str, int]:
    """The counts of a row's models, or of its layer."""
    if 'layer' in row:
        return {row['layer']: layer_params(row['layer'], row['symbols']['C'])}
    quantity = structure.get('quantities', {}).get(how['quantity'], how['quantity'])
    options = {**row.get('attn_kwargs', {}), **structure.get('attn_kwargs', {})}
    classes, size = row.get('num_classes', table.get('num_classes')), table['image_size']
    change = structure.get('change')
    base = count(CountedNet(row['base'], classes, size, change=change), quantity) if how.get('extra') else 0
    kwargs = tuple(options.items())
    return {model: count(CountedNet(model, classes, size, kwargs, change), quantity) - base for model in row['models']}
