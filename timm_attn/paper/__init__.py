"""The papers' tables of parameters and operations, figure by figure, beside what our models have."""

from timm_attn.paper.compare import Cell, rows, table_ids
from timm_attn.paper.render import FORMATS, render


def tables(format: str = 'md', table: str | None = None) -> str:
    """What `timm-attn paper` prints: one table, such as 'BAM 4', or all, as 'md', 'json' or 'csv'.

    Raises:
        ValueError: there is no such format or table.
    """
    return render(format, table)


__all__ = ['FORMATS', 'Cell', 'rows', 'table_ids', 'tables']
