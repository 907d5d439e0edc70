"""Compares every number of printed.json with our nets."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from timm_attn.paper.arithmetic import ARITHMETIC
from timm_attn.paper.counted import CountedNet, count, layer_params
from timm_attn.paper.printed import UNITS, Printed, parse_figure, parse_formula

Record = Mapping[str, Any]  # an object of printed.json
Verdict = Literal['ticked', 'ticked with', 'crossed', 'not printed']


@dataclass(frozen=True)
class Cell:
    """A printed number and our count.

    Args:
        table, row, column, printed: the place and the text of the number, '' where the paper leaves it out.
        quantity: our counting convention, a key of counted.COUNTS, or 'extra ' and such a key: more than the plain net;
            or the arithmetic of the paper, a key of ARITHMETIC.
        ours: the count of each of our models for the row, or what the paper's own figures give, to three decimals.
        verdict: 'ticked' if one of them rounds to the figure, 'ticked with' if it does so with another structure.
        fits: the models that do.
        note: that structure, or the reason why none does.
    """

    table: str
    row: str
    column: str
    printed: str
    quantity: str
    ours: Mapping[str, float]
    verdict: Verdict
    fits: tuple[str, ...]
    note: str


@cache
def printed() -> Record:
    """printed.json: tables of rows, whose figures are the values of the table's columns.

    A row names our models, or an attention layer, or the `operands` of the paper's own arithmetic. `builder` is what
    makes the net of a row from its models, which are then backbones or attentions. Where a row does not fit,
    `structure` names one of `structures` to try; `why` gives one of `reasons` for each number that does not fit.
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
    how, structures = table['columns'][column], _structures(row)
    quantity = f'extra {how["quantity"]}' if how.get('extra') else how['quantity']
    place = (table['id'], row['row'], column, row[column], quantity)
    if not row[column]:
        return Cell(*place, _rounded(_ours(table, row, how, {})), 'not printed', (), '')
    figure = _figure(table, row, column)
    verdict: Verdict = 'crossed'
    for structure in structures:
        ours = _ours(table, row, how, structure)
        fits = tuple(model for model, n in ours.items() if figure.fits(n))
        if fits:
            verdict = 'ticked with' if structure else 'ticked'
            break
    note = structure.get('title', '') if fits else _reason(row, column)
    return Cell(*place, _rounded(ours), verdict, fits, note)


def _structures(row: Record) -> list[Record]:
    return [{}, printed()['structures'][row['structure']]] if 'structure' in row else [{}]


def _reason(row: Record, column: str) -> str:
    key = row.get('why', {}).get(column)
    return printed()['reasons'][key] if key else ''


def _figure(table: Record, row: Record, column: str) -> Printed:
    if 'layer' in row:
        return parse_formula(row[column], row['symbols'])
    return parse_figure(row[column], table.get('units', UNITS))


def _ours(table: Record, row: Record, how: Record, structure: Record) -> Mapping[str, int | Decimal]:
    """The counts of a row's models, or of its layer, or what its operands give."""
    if 'operands' in row:
        return {'printed': ARITHMETIC[how['quantity']]([Decimal(operand) for operand in row['operands']])}
    if 'layer' in row:
        return {row['layer']: layer_params(row['layer'], row['symbols']['C'])}
    quantity = structure.get('quantities', {}).get(how['quantity'], how['quantity'])
    options = {**row.get('attn_kwargs', {}), **structure.get('attn_kwargs', {})}
    shared: dict[str, Any] = dict(
        num_classes=row.get('num_classes', table.get('num_classes', 0)),
        image_size=table.get('image_size', 0),
        attn_kwargs=tuple(options.items()),
        change=structure.get('change'),
        builder=row.get('builder', 'timm'),
    )
    base = count(CountedNet(row['base'], **{**shared, 'attn_kwargs': ()}), quantity) if how.get('extra') else 0
    counts = {model: count(CountedNet(model, **shared), quantity) - base for model in row['models']}
    return {f'{row["builder"]}({model})': n for model, n in counts.items()} if 'builder' in row else counts


def _rounded(ours: Mapping[str, int | Decimal]) -> dict[str, float]:
    """Counts as they are, and fractions to three decimals."""
    return {model: n if isinstance(n, int) else float(round(n, 3)) for model, n in ours.items()}
