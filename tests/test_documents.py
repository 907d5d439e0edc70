"""README and docs: what they print runs, their links lead somewhere, and the front page stays short."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

import timm_attn
from tests.support.commands import ROOT
from timm_attn import zoo
from timm_attn.cli import _parser as parser
from timm_attn.weights import checkpoints

README = ROOT / 'README.md'
PAGES = [README, *(ROOT / f'{name}.md' for name in ('CONTRIBUTING', 'CHANGELOG', 'SECURITY'))]
PAGES += sorted((ROOT / 'docs').rglob('*.md'))
NOT_RUN = '<!-- not run: '  # and the reason, on the line above a block


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language, but those that say why they are not run."""
    found = re.findall(rf'^([^\n]*)\n```{language}\n(.*?)^```$', page.read_text(encoding='utf-8'), re.S | re.M)
    return [code for before, code in found if not before.startswith(NOT_RUN)]


def named(pages: list[Path]) -> list[Any]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of what a page prints: as a clone, where files may be written."""
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's weights of a ResNet-50 without a network: random ones."""

    def loaded(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return timm.create_model('resnet50').state_dict()

    monkeypatch.setattr('timm_attn.from_tags.require_reachable', lambda name: None)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', loaded)


@pytest.mark.parametrize('page', named([page for page in PAGES if blocks(page, 'python')]))
@pytest.mark.filterwarnings('ignore:.*SimAM:UserWarning')
def test_the_python_of_a_page_runs(page: Path, clone: Path, imagenet: None) -> None:
    namespace: dict[str, Any] = {}
    if page != README:  # which has the imports that the pages do without
        namespace.update(timm=timm, timm_attn=timm_attn, torch=torch)
    for code in blocks(page, 'python'):
        exec(compile(code, str(page), 'exec'), namespace)


@pytest.mark.parametrize('page', named([page for page in PAGES if blocks(page, 'sh')]))
def test_the_commands_of_a_page_are_valid(page: Path) -> None:
    lines = '\n'.join(blocks(page, 'sh')).replace('\\\n', ' ').splitlines()
    for line in lines:
        program, *argv = shlex.split(line, comments=True) or ['']
        if program == 'timm-attn':
            parser().parse_args(argv)
        if program == 'python' and argv[0].startswith('scripts/'):
            assert (ROOT / argv[0]).is_file(), line


@pytest.mark.parametrize('page', named(PAGES))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r'^```.*?^```$', '', page.read_text(encoding='utf-8'), flags=re.S | re.M)
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if '://' not in target and not target.startswith('#'):
            assert (page.parent / target.partition('#')[0]).exists(), target
    assert 'OWNER' not in text


def test_the_counts_of_the_front_page() -> None:
    text = README.read_text(encoding='utf-8')
    assert f'{len(timm_attn.BACKBONES)} backbones, [{len(zoo.names())} names]' in text
    assert f'**{len(checkpoints())} checkpoints**' in text


def test_one_version_everywhere() -> None:
    version = timm_attn.__version__
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert citation['version'] == version
    assert f'version = {{{version}}}' in README.read_text(encoding='utf-8')


def test_the_front_page_is_short() -> None:
    lines = README.read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 180
    tables = re.findall(r'(?:^\|.*\n)+', '\n'.join(lines) + '\n', re.M)
    assert tables and all(len(table.splitlines()) - 2 <= 12 for table in tables)
    first = next(i for i, line in enumerate(lines) if line.startswith('!['))
    assert first < 12, 'the picture is above the fold'
