"""The papers' tables of parameters and operations, each printed number compared with our models."""

from timm_attn.paper.compare import Cell, rows, table_ids
from timm_attn.paper.render import FORMATS, tables

__all__ = ['FORMATS', 'Cell', 'rows', 'table_ids', 'tables']
