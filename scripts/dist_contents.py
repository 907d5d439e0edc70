#!/usr/bin/env python3
"""Checks that a wheel holds the package, all of it and nothing else, and an sdist the repository without its CI."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IN_WHEEL = re.compile(r'timm_attn/|timm_attn_command\.py$|timm_attn-[^/]+\.dist-info/')
NOT_IN_SDIST = re.compile(r'\.github/|\.ci/|\.pre-commit-config\.yaml$')  # of use in a clone only


def tracked() -> set[str]:
    """The files of the repository."""
    return set(subprocess.check_output(['git', 'ls-files'], cwd=ROOT, text=True).splitlines())


def wheel_faults(path: Path) -> list[str]:
    found = set(zipfile.ZipFile(path).namelist())
    wanted = {name for name in tracked() if re.match(r'timm_attn/|timm_attn_command\.py$', name)}
    wanted.add('timm_attn/weights_manifest.json')
    return [
        *(f'has {name}' for name in sorted(found) if not IN_WHEEL.match(name)),
        *(f'lacks {name}' for name in sorted(wanted - found)),
        *(f'has {name}' for name in sorted(found - wanted) if name.startswith('timm_attn/')),
    ]


def sdist_faults(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        found = {member.name.partition('/')[2] for member in tar if member.isfile()}
    wanted = {name for name in tracked() if not NOT_IN_SDIST.match(name)}
    return [
        *(f'lacks {name}' for name in sorted(wanted - found)),
        *(f'has {name}' for name in sorted(found - wanted - {'PKG-INFO'})),
    ]


def main() -> int:
    faults = 0
    for path in map(Path, sys.argv[1:]):
        found = wheel_faults(path) if path.suffix == '.whl' else sdist_faults(path)
        faults += len(found)
        print('\n'.join([f'{path.name} holds what it should' if not found else f'{path.name}:', *found]))
    return int(faults > 0)


if __name__ == '__main__':
    sys.exit(main())
