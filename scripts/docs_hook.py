"""Hooks of mkdocs.yml: equations become MathML, which browsers draw without a script; the notebook becomes a page."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_MATH = re.compile(r'^```math\n(.*?)^```$', re.S | re.M)
_NOTEBOOK = 'quickstart'


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fenced blocks of `math`, as GitHub has them, in LaTeX; links to the notebook lead to its page."""
    if page.file.src_uri != f'{_NOTEBOOK}.md':
        markdown = markdown.replace(f'({_NOTEBOOK}.ipynb)', f'({_NOTEBOOK}.md)')
    return _MATH.sub(lambda found: f'<div>{convert(" ".join(found[1].split()), display="block")}</div>', markdown)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the notebook as a page; the file itself can be downloaded beside it."""
    content = notebook_page(Path(config.docs_dir) / f'{_NOTEBOOK}.ipynb')
    files.append(File.generated(config, f'{_NOTEBOOK}.md', content=content))


def notebook_page(path: Path) -> str:
    """A notebook with its outputs as Markdown."""
    notebook = json.loads(path.read_text(encoding='utf-8'))
    link = f'[This page is a notebook]({_NOTEBOOK}.ipynb); its outputs are those of its last run.'
    title, *cells = (part for cell in notebook['cells'] for part in _markdown(cell))
    return '\n\n'.join([title, link, *cells])


def _markdown(cell: Mapping[str, Any]) -> Iterator[str]:
    """A cell and its outputs."""
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        yield source
        return
    yield f'```python\n{source}\n```'
    for output in cell['outputs']:
        data = output.get('data', {})
        text = ''.join(output.get('text', data.get('text/plain', '')))
        if 'image/png' in data:
            yield f'![The output of the cell](data:image/png;base64,{"".join(data["image/png"].split())})'
        elif text:
            yield f'```text\n{text.rstrip()}\n```'
