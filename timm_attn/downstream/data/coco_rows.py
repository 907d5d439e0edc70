"""What the rows of a COCO file must be: a rule for each value that is read, and ids that are there once."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from timm_attn.training.bounds import short


def check_rows(content: Any, file: Path) -> None:
    """Raises a ValueError unless the content has COCO's three lists, whose rows have valid values and ids of their own.

    What annotations point to, and where their boxes lie, is not looked at.
    """
    for key, rules in _ROWS.items():
        rows, needs = content.get(key) if isinstance(content, dict) else None, rules.keys() - _MAY_MISS
        if not isinstance(rows, list) or not all(isinstance(row, dict) and needs <= row.keys() for row in rows):
            raise ValueError(f'{file} has no list {key!r} whose rows all have {", ".join(sorted(needs))}.')
        for place, row in enumerate(rows):
            for name, (words, holds) in rules.items():
                if name in row and not holds(row[name]):
                    what = f'{key[:-1]} {short(row["id"])}' if key == 'annotations' else f'row {place} of its {key}'
                    raise ValueError(f'{file}: {what} has the {name} {short(row[name])}, but it must be {words}.')
        if key != 'annotations':  # whose ids nothing reads
            _check_ids(rows, key, file)


def _check_ids(rows: list[Mapping[str, Any]], key: str, file: Path) -> None:
    seen: set[int] = set()
    for row in rows:
        if row['id'] in seen:
            raise ValueError(f'{file} has two {key} with the id {short(row["id"])}.')
        seen.add(row['id'])


def _is_number(value: Any) -> bool:
    """Finite, also as a 32-bit float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _is_id(value: Any) -> bool:
    return _is_number(value) and value == math.floor(value)


def _is_text(value: Any) -> bool:
    """A text that can be a file's name, so without half of a character."""
    return isinstance(value, str) and not any(0xD800 <= ord(c) < 0xDC80 or 0xDD00 <= ord(c) < 0xE000 for c in value)


def _is_inside(value: Any) -> bool:
    return _is_text(value) and not PurePath(value).is_absolute() and '..' not in PurePath(value).parts


Rule = tuple[str, Callable[[Any], bool]]  # in words and as a test
_ID: Rule = ('an integer', _is_id)
_SIDE: Rule = ('a whole number of pixels', lambda value: _is_id(value) and value > 0)
_MAY_MISS = {'iscrowd'}
_ROWS: dict[str, dict[str, Rule]] = {
    'images': {
        'id': _ID,
        'file_name': ('the path of a file in the folder of the split', _is_inside),
        'width': _SIDE,
        'height': _SIDE,
    },
    'categories': {'id': _ID, 'name': ('a text', _is_text)},
    'annotations': {
        'id': ('an integer or a text', lambda value: _is_id(value) or _is_text(value)),
        'image_id': _ID,
        'category_id': _ID,
        'bbox': (
            '[x, y, width, height]',
            lambda value: isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)),
        ),
        'area': ('a number from 0 on', lambda value: _is_number(value) and value >= 0),
        'iscrowd': ('0 or 1', lambda value: isinstance(value, int | float) and value in (0, 1)),
        'segmentation': ('polygons or run lengths', lambda value: isinstance(value, list | dict)),
    },
}
