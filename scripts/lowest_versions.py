"""Print the lowest versions that pyproject.toml admits, as constraints for pip: `pip install -c FILE .`"""

import re
from pathlib import Path

import tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / 'pyproject.toml'


def lowest() -> list[str]:
    """NAME==VERSION of every dependency NAME>=VERSION."""
    requirements = tomllib.loads(PYPROJECT.read_text())['project']['dependencies']
    return [re.sub(r'>=([\d.]+).*', r'==\1', requirement) for requirement in requirements]


if __name__ == '__main__':
    print(*lowest(), sep='\n')
