"""The allow-list of model arguments and input settings in checkpoints, config.json and the manifest.

Such files are untrusted input, and model arguments reach timm's builder: other arguments than these could fetch from
addresses, open and write files, or switch checks off.
"""

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_LONGEST_TEXT = 64  # of names of layers and pools
_MOST_CLASSES = 1_000_000
_MOST_PIXELS = 2048  # of an input's height or width
_MOST_CHANNELS = 512  # of an input
_LONGEST_NAME = 200  # of a class
_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'hamming', 'lanczos')


class Rule(NamedTuple):
    """A condition for a value, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Finite, and within bounds."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most and abs(value) < 1e9
    )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, tuple)) and not value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME


def _is_list_of(value: Any, holds: Callable[[Any], bool], most: int = 16) -> bool:
    return isinstance(value, (list, tuple)) and 0 < len(value) <= most and all(map(holds, value))


def _is_plain(value: Any) -> bool:
    """A value of a layer's option: a number, a text, true, false, null, or a list of numbers."""
    return (
        value is None
        or isinstance(value, bool)
        or _is_number(value)
        or _is_text(value)
        or _is_list_of(value, _is_number)
    )


def _integer(least: int, most: int) -> Rule:
    return Rule(f'an integer of {least} ... {most:,}', lambda value: _is_integer(value, least, most))


def _integers(most: int) -> Rule:
    return Rule(
        f'a list of integers of 1 ... {most:,}', lambda value: _is_list_of(value, lambda v: _is_integer(v, 1, most))
    )


def _number(least: float, most: float) -> Rule:
    return Rule(f'a number of {least:g} ... {most:g}', lambda value: _is_number(value, least, most))


_TEXT = Rule(f'a text of at most {_LONGEST_TEXT} characters', _is_text)
_SWITCH = Rule('true or false', lambda value: isinstance(value, bool))
_RATE = _number(0, 1)
_WIDTH = _integer(1, 8192)
_OPTIONS = Rule(
    'a mapping of names to plain values',
    lambda value: isinstance(value, Mapping) and all(_is_text(k) and _is_plain(v) for k, v in value.items()),
)

_REGISTERED = Rule(
    'the name of a registered model',  # and no address: such a name could fetch from the Hub
    lambda value: (
        isinstance(value, str) and re.fullmatch(r'[A-Za-z0-9_]{1,80}(\.[A-Za-z0-9_]{1,80})?', value) is not None
    ),
)
_PATHS = Rule(
    'a text or a list of texts',
    lambda value: _is_path(value) or _is_list_of(value, _is_path, 64) or _is_empty(value),
)

# Arguments of timm's model classes, of with_attention, and the attention's options.
MODEL: Mapping[str, Rule] = MappingProxyType(
    {
        'attn_kwargs': _OPTIONS,
        'backbone': _REGISTERED,
        **dict.fromkeys(('attention', 'start'), _TEXT),
        **dict.fromkeys(('at', 'stages'), _PATHS),
        'replace': _SWITCH,
        'num_classes': _integer(0, _MOST_CLASSES),
        'in_chans': _integer(1, _MOST_CHANNELS),
        'output_stride': _integer(1, 64),
        **dict.fromkeys(('global_pool', 'act_layer', 'norm_layer', 'aa_layer', 'stem_type', 'pad_type'), _TEXT),
        **dict.fromkeys(('drop_rate', 'drop_path_rate', 'drop_block_rate', 'bn_eps', 'bn_momentum'), _RATE),
        **dict.fromkeys(
            ('stem_width', 'stem_size', 'base_width', 'cardinality', 'growth_rate', 'num_features'), _WIDTH
        ),
        **dict.fromkeys(('stem_kernel_size', 'down_kernel_size', 'block_reduce_first', 'bn_size'), _integer(1, 64)),
        **dict.fromkeys(('channels', 'block_config'), _integers(8192)),
        **dict.fromkeys(
            (
                'avg_down',
                'replace_stem_pool',
                'zero_init_last',
                'fix_stem',
                'bn_tf',
                'memory_efficient',
                'aa_stem_only',
            ),
            _SWITCH,
        ),
    }
)

# Settings of the input in the arguments of timm's train.py, a recipe or a pretrained cfg.
INPUT: Mapping[str, Rule] = MappingProxyType(
    {
        'input_size': Rule(
            f'three integers, the channels of 1 ... {_MOST_CHANNELS}, height and width of 1 ... {_MOST_PIXELS:,}',
            lambda value: (
                _is_list_of(value, lambda v: _is_integer(v, 1, _MOST_PIXELS))
                and len(value) == 3
                and value[0] <= _MOST_CHANNELS
            ),
        ),
        'img_size': _integer(1, _MOST_PIXELS),
        'in_chans': _integer(1, _MOST_CHANNELS),
        'mean': Rule('a list of numbers', lambda value: _is_list_of(value, _is_number, _MOST_CHANNELS)),
        'std': Rule(
            'a list of positive numbers',
            lambda value: _is_list_of(value, lambda v: _is_number(v, 1e-9), _MOST_CHANNELS),
        ),
        'interpolation': Rule(
            f'one of {", ".join(_INTERPOLATIONS)}', lambda v: isinstance(v, str) and v in _INTERPOLATIONS
        ),
        'crop_pct': _number(0.1, 4),
    }
)

_NAMES = Rule(
    f'a list of printable texts of at most {_LONGEST_NAME} characters',
    lambda value: (
        isinstance(value, (list, tuple))
        and all(isinstance(v, str) and v.isprintable() and len(v) <= _LONGEST_NAME for v in value)
    ),
)


def model_metadata(said: Any, source: object, also: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The model arguments of a file, checked.

    Args:
        source: the file, for the message.
        also: the user's own arguments, which a file may repeat.

    Raises:
        ValueError: they are no mapping, or one of them is not of MODEL or has a value that it cannot have.
    """
    if not isinstance(said, Mapping):
        raise ValueError(f'{source} must say its model arguments as a mapping, but says {reprlib.repr(said)}.')
    for key, value in said.items():
        if value is None:
            continue
        if key not in MODEL:
            if key in also and type(also[key]) is type(value) and also[key] == value:
                continue
            raise ValueError(
                f'{source} sets the model argument {reprlib.repr(key)}, which a file may not: it may set '
                f'{", ".join(MODEL)}.'
            )
        _check(MODEL[key], key, value, source)
    return {key: value for key, value in said.items() if value is not None}


def input_metadata(said: Mapping[str, Any], source: object) -> dict[str, Any]:
    """A file's settings of the input; other keys are dropped.

    Raises:
        ValueError: a value of INPUT that it cannot have.
    """
    found = {key: said[key] for key in INPUT if not _is_empty(said.get(key))}
    for key, value in found.items():
        _check(INPUT[key], key, value, source)
    return found


def class_names(said: Any, source: object) -> list[str] | None:
    """The class names of a file, checked; None where it has none.

    Raises:
        ValueError: they are no list of printable texts.
    """
    if said is None:
        return None
    _check(_NAMES, 'class names', said, source)
    return list(said)


def _check(rule: Rule, key: str, value: Any, source: object) -> None:
    if not rule.holds(value):
        raise ValueError(f'{source} has {key} {reprlib.repr(value)}, but it must be {rule.words}.')
