#!/usr/bin/env python3
"""Prints the shell commands of README.md, which run in a clone, without those that are marked `command N`."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / 'README.md'


def main() -> None:
    blocks = re.findall(r'^([^\n]*)\n```sh\n(.*?)^```$', README.read_text(encoding='utf-8'), re.S | re.M)
    print(''.join(code for before, code in blocks if not re.match(r'<!-- command \d -->', before)), end='')


if __name__ == '__main__':
    main()
