"""Figures of results, drawn with matplotlib: data in, figure out."""

from timm_attn.figures.canvas import require_matplotlib, save
from timm_attn.figures.comparison import Answer, comparison_sheet
from timm_attn.figures.confusion import confusion_figure
from timm_attn.figures.cost import cost_figure
from timm_attn.figures.curves import curves_figure
from timm_attn.figures.explanation import Explanation, explanation_sheet
from timm_attn.figures.profiles import profile_figure
from timm_attn.figures.selectivity import selectivity_figure
from timm_attn.figures.sweep import sweep_figure

__all__ = [
    'Answer',
    'Explanation',
    'comparison_sheet',
    'confusion_figure',
    'cost_figure',
    'curves_figure',
    'explanation_sheet',
    'profile_figure',
    'require_matplotlib',
    'save',
    'selectivity_figure',
    'sweep_figure',
]
