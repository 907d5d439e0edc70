"""Tables in Markdown, and their places in files: between `<!-- NAME -->` and `<!-- /NAME -->`."""

import re
import sys
from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first columns are aligned to the left, the others to the right."""
    lines = [head, ['---'] * left + ['---:'] * (len(head) - left), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def new_text(text: str, file: str, tables: Mapping[str, str]) -> str:
    """A file's text with its tables between their markers.

    Raises:
        SystemExit: a table's markers are not there once.
    """
    for name, content in tables.items():
        between = rf'(<!-- {name} -->\n).*?(<!-- /{name} -->)'
        text, found = re.subn(between, lambda m, c=content: f'{m[1]}{c}\n{m[2]}', text, flags=re.S)
        if found != 1:
            sys.exit(f'{file} must have the markers of the table {name!r} once, but has them {found} times')
    return text
