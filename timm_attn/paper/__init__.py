"""The papers' tables of parameters and operations, figure by figure, beside what our models have."""

from timm_attn.paper.compare import Cell, rows, table_ids
from timm_attn.paper.render import FORMATS, tables

__all__ = ['FORMATS', 'Cell', 'rows', 'table_ids', 'tables']
