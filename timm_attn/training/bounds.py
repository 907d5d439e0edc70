"""The valid values of a recipe's keys, beyond their types."""

import operator
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80
_MOST = sys.float_info.max  # refuses infinities, NaN and integers beyond any float


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers, closed unless an end is open; for a list, the interval of each item."""

    low: float = -_MOST
    high: float = _MOST
    above: bool = False  # open at its low end
    below: bool = False  # open at its high end

    def __contains__(self, number: float) -> bool:
        low = self.low < number if self.above else self.low <= number
        return low and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        low = f'{"above" if self.above else "at least"} {self.low}' if self.low > -_MOST else ''
        high = f'{"below" if self.below else "at most"} {self.high}' if self.high < _MOST else 'finite'
        return f'{low} and {high}' if low else high


# Values of keys whose type alone does not say what is valid.
CHOICES: dict[str, tuple[str, ...]] = {
    'amp_dtype': ('float16', 'bfloat16'),
    'dist_bn': ('', 'broadcast', 'reduce'),
    # not plateau: its state would be lost in a checkpoint
    'sched': ('cosine', 'step', 'multistep', 'poly', 'tanh', 'constant'),
}
_LARGEST = 2**31 - 1  # whole number
BOUNDS = {
    **dict.fromkeys(('batch_size', 'validation_batch_size', 'epochs', 'grad_accum_steps'), Bounds(1, _LARGEST)),
    **dict.fromkeys(('num_classes', 'input_size', 'train_img_sizes', 'decay_milestones'), Bounds(1, _LARGEST)),
    **dict.fromkeys(('train_num_samples', 'val_num_samples', 'train_batches_per_epoch'), Bounds(1, _LARGEST)),
    # numpy's generator takes no larger seed than 2**32, and each process adds its rank
    **dict.fromkeys(('workers', 'start_epoch', 'warmup_epochs', 'cooldown_epochs', 'seed'), Bounds(0, _LARGEST)),
    **dict.fromkeys(('weight_decay', 'min_lr', 'warmup_lr', 'color_jitter'), Bounds(0)),
    **dict.fromkeys(('lr', 'attention_lr_scale', 'clip_grad', 'decay_epochs', 'std', 'ratio'), Bounds(0, above=True)),
    **dict.fromkeys(('scale', 'decay_rate'), Bounds(0, 1, above=True)),
    'crop_pct': Bounds(0.1, 1),  # a smaller one resizes to a picture that no memory holds
    **dict.fromkeys(('momentum', 'smoothing', 'drop', 'model_ema_decay'), Bounds(0, 1, below=True)),
    'hflip': Bounds(0, 1),
}
_ANY = Bounds()
# How many items a list may have.
LENGTHS = {'input_size': (3,), 'mean': (1, 3), 'std': (1, 3), 'scale': (2,), 'ratio': (2,)}
# How consecutive items of a list compare.
ORDERS = {
    'scale': (operator.le, 'do not fall'),
    'ratio': (operator.le, 'do not fall'),
    'decay_milestones': (operator.lt, 'rise'),
}
_MANY = 10_000  # values in a mapping; YAML's aliases can expand a few bytes without end


def short(value: Any) -> str:
    """A value as text for a message, cut where it is long."""
    try:
        text = _SHORT.repr(value)
        return text if len(text) <= 200 else f'{text[:200]} ...'
    except ValueError:  # Python writes no integer of thousands of digits
        return f'a very large {type(value).__name__}'


def must_be(key: str, value: Any) -> str | None:
    """What a key's value must be, if it is of the right type but not valid; else None."""
    if value is None:
        return None
    if key in CHOICES and value not in CHOICES[key]:
        return f'one of {", ".join(map(repr, CHOICES[key]))}'
    items = value if isinstance(value, list) else [value]
    bounds = BOUNDS.get(key, _ANY)
    if not all(item in bounds for item in items if isinstance(item, (int, float))):
        return f'{bounds}, each item' if isinstance(value, list) else str(bounds)
    if len(items) not in LENGTHS.get(key, (len(items),)):
        return f'a list of {" or ".join(map(str, LENGTHS[key]))} items'
    if key in ORDERS:
        fits, words = ORDERS[key]
        if not all(starmap(fits, pairwise(items))):
            return f'a list whose items {words}'
    if isinstance(value, Mapping) and not _is_plain(value):
        return f'at most {_MANY:,} texts, finite numbers, true, false, null, lists and mappings, each key a text'
    return None


def _is_plain(value: Any) -> bool:
    """Whether JSON can write a value, and a checkpoint hold it."""
    pending, seen = [value], 0
    while pending and seen <= _MANY:
        value, seen = pending.pop(), seen + 1
        if isinstance(value, Mapping):
            pending += value.values()
            if not all(isinstance(key, str) for key in value):
                return False
        elif isinstance(value, (list, tuple)):
            pending += value
        elif not (value is None or isinstance(value, str) or (isinstance(value, (int, float)) and value in _ANY)):
            return False
    return not pending
