"""The rooms of the package: imports point down the list, never up, and never in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import timm_attn

PACKAGE = Path(timm_attn.__file__).parent
# From the bottom to the top; a module may import what stands above it here, and its own room.
ROOMS = (
    'ops', 'attention', 'warm_start', 'attach', 'param_groups', 'backbones', 'files', 'images', 'data', 'weights',
    'from_tags', 'zoo', 'with_attention', 'deploy', 'analysis', 'catalog', 'figures',
    'training', 'reports', 'downstream', 'paper', 'demo', '', 'run', 'cli',
)  # fmt: skip


def room(module: str) -> str:
    """The folder or file below the package; '' for the package itself."""
    return (module.split('.') + [''])[1]


def imports() -> Iterator[tuple[str, str]]:
    """The room of every import inside the package, and the room that it imports."""
    for path in PACKAGE.rglob('*.py'):
        inside = path.relative_to(PACKAGE).with_suffix('').parts
        own = '' if inside == ('__init__',) else inside[0]
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.ImportFrom) and node.module == 'timm_attn':
                yield from ((own, alias.name if alias.name in ROOMS else '') for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('timm_attn.'):
                yield own, room(str(node.module))
            elif isinstance(node, ast.Import):
                yield from ((own, room(a.name)) for a in node.names if a.name.split('.')[0] == 'timm_attn')


def test_every_room_is_in_the_list() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').is_file()}
    assert found - {'__init__'} == set(ROOMS) - {''}


def test_imports_point_down() -> None:
    place = {name: index for index, name in enumerate(ROOMS)}
    upward = {(own, other) for own, other in imports() if place[other] > place[own]}
    assert upward == set(), sorted(upward)
