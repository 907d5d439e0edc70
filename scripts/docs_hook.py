"""Hooks of mkdocs.yml: equations become MathML, which browsers draw without a script."""

import re
from typing import Any

from latex2mathml.converter import convert

_MATH = re.compile(r'^```math\n(.*?)^```$', re.S | re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fenced blocks of `math`, as GitHub has them, in LaTeX."""
    return _MATH.sub(lambda found: f'<div>{convert(" ".join(found[1].split()), display="block")}</div>', markdown)
