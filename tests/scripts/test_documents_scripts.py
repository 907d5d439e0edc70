"""The scripts behind the documents and the release: pages, commands, contents of the distributions."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dist_contents
import pytest
import readme_commands

from tests.support.commands import ROOT

CLONE = pytest.mark.skipif(not (ROOT / '.git').exists(), reason='git knows the files of a clone only')
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri='index.md'))


@pytest.fixture
def hook() -> Any:
    pytest.importorskip('mkdocs', reason="the documentation's extra `docs` is not installed")
    import docs_hook

    return docs_hook


def test_equations_become_mathml(hook: Any) -> None:
    page = hook.on_page_markdown('a\n\n```math\nX \\odot\nY\n```\n\nb [n](quickstart.ipynb)', page=PAGE)
    assert '<math' in page and '```' not in page and '\\odot' not in page
    assert page.startswith('a\n\n<div>') and page.endswith('b [n](quickstart.md)')


def test_the_notebook_becomes_a_page(hook: Any, tmp_path: Path) -> None:
    cells = [
        {'cell_type': 'markdown', 'source': ['# Title']},
        {
            'cell_type': 'code',
            'source': ['1 + 1'],
            'outputs': [{'text': ['2\n']}, {'data': {'image/png': 'YQ==\n', 'text/plain': ['<Image>']}}],
        },
    ]
    (tmp_path / 'quickstart.ipynb').write_text(json.dumps({'cells': cells}))
    page = hook.notebook_page(tmp_path / 'quickstart.ipynb')
    assert page.startswith('# Title\n\n[This page is a notebook](quickstart.ipynb)')
    assert '```python\n1 + 1\n```\n\n```text\n2\n```' in page
    assert '](data:image/png;base64,YQ==)' in page and '<Image>' not in page


def test_the_commands_that_ci_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme_commands.main()
    printed = capsys.readouterr().out
    assert 'timm-attn predict --checkpoint runs/own/last.pth.tar' in printed
    assert 'timm-attn demo' not in printed and 'pytest' not in printed  # the marked ones run by themselves


@CLONE
def test_a_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    wheel = tmp_path / 'timm_attn-1.0-py3-none-any.whl'
    files = [name for name in dist_contents.tracked() if name.startswith('timm_attn/')]
    with zipfile.ZipFile(wheel, 'w') as archive:
        for name in [
            *files,
            'timm_attn_command.py',
            'timm_attn/weights_manifest.json',
            'timm_attn-1.0.dist-info/METADATA',
        ]:
            archive.writestr(name, '')
    assert dist_contents.wheel_faults(wheel) == []
    with zipfile.ZipFile(wheel, 'a') as archive:
        archive.writestr('tests/test_a.py', '')
        archive.writestr('timm_attn/runs/a.png', '')
    assert dist_contents.wheel_faults(wheel) == ['has tests/test_a.py', 'has timm_attn/runs/a.png']
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('timm_attn_command.py', '')
    assert 'lacks timm_attn/zoo.py' in dist_contents.wheel_faults(wheel)


@CLONE
def test_an_sdist_holds_the_repository_without_its_ci(tmp_path: Path) -> None:
    sdist = tmp_path / 'timm_attn-1.0.tar.gz'
    wanted = [name for name in dist_contents.tracked() if not name.startswith(('.github/', '.ci/', '.pre-commit'))]
    with tarfile.open(sdist, 'w') as tar:
        for name in ['PKG-INFO', *wanted[1:], 'scratch.txt']:
            tar.addfile(tarfile.TarInfo(f'timm_attn-1.0/{name}'), io.BytesIO())
    assert dist_contents.sdist_faults(sdist) == [f'lacks {wanted[0]}', 'has scratch.txt']


def test_scripts_are_executable() -> None:
    for name in ('check_release.sh', 'dist_contents.py', 'notebook.py', 'readme_commands.py'):
        assert (ROOT / 'scripts' / name).stat().st_mode & 0o111, name
