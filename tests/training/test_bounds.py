"""The bounds of the values in a recipe."""

import math
from dataclasses import fields
from typing import Any

import pytest

from timm_attn.training.recipe import Recipe, recipe_of

NAN, INF, HUGE = math.nan, math.inf, 10**5000


DEEP: list[Any] = []


DEEP.append(DEEP)


BOMB: list[Any] = [1] * 10


for _ in range(20):
    BOMB = [BOMB] * 10
# Of each key values just outside and just inside of what is valid.


EDGES: dict[str, tuple[list[Any], list[Any]]] = {
    'lr': ([0, -0.1, NAN, INF, HUGE, '0.1', None, [0.1], True], [1e-300, 1e300, 1]),
    'clip_grad': ([-1.0, 0, NAN, INF], [1e-9, None]),
    'model_ema_decay': ([2.0, 1.0, -0.1, NAN], [0, 0.99999]),
    'crop_pct': ([0.0, 1e-9, 0.09, 1.01, -1, NAN], [1, 0.5, 0.1, None]),
    'hflip': ([5.0, -0.1, NAN], [0, 1]),
    'decay_epochs': ([0, -1, INF], [0.5]),
    'decay_rate': ([0, -0.1, 1.01, 2.0, NAN], [0.1, 1]),
    'smoothing': ([1.0, -0.1, NAN], [0, 0.999]),
    'drop': ([1.0, -0.1], [0, 0.999]),
    'momentum': ([1.0, -0.1, 1.5], [0, 0.999]),
    'weight_decay': ([-1e-9, NAN], [0]),
    'attention_lr_scale': ([0, -1, INF, '10', None], [10, 0.5]),
    'min_lr': ([-1e-9, INF], [0]),
    'warmup_lr': ([-1e-9], [0]),
    'color_jitter': ([-0.1, NAN], [0, None]),
    'scale': ([[0.5], [0.5, 0.4], [0, 1], [0.5, 1.1], [0.1, 0.2, 0.3], [NAN, 1], 0.5], [[0.1, 1.0], [1, 1]]),
    'ratio': ([[1.5, 0.5], [-1, 1], [0.0, 1.0], [1.0, INF], []], [[0.5, 2.0], [1, 1]]),
    'mean': ([[0.1, 0.2], [], [0.1, 0.2, NAN], [0.1, None, 0.2]], [[0.5], [-1, 0, 1], None]),
    'std': ([[0.1, 0.2], [0.1, 0, 0.1], [-0.1]], [[0.5], [0.1, 0.2, 0.3]]),
    'input_size': ([[28], [3, 0, 28], [3, -1, 1], [3, 28.0, 28], 28, [3, HUGE, 3]], [[3, 28, 32], None]),
    'train_img_sizes': ([[0], [-1, 32], [32.0]], [[32, 16], None]),
    'num_classes': ([0, -1], [1, None]),
    'decay_milestones': ([[2, 1], [1, 1], [0, 1], [-1], [1.5]], [[], [1, 2]]),
    'batch_size': ([0, -1, HUGE, 2**31, 1.0], [1]),
    'seed': ([-1, HUGE, 1.0], [0, 2**31 - 1]),
    'workers': ([-1], [0]),
    'train_num_samples': ([0], [1, None]),
    'val_num_samples': ([0], [1, None]),
    'train_batches_per_epoch': ([0], [1, None]),
    'model_kwargs': (
        [{'a': NAN}, {'a': [1, {'b': INF}]}, {1: 2}, {'a': {None: 1}}, {'a': b'x'}, {'a': {1, 2}}, {'a': DEEP}, [1]]
        + [{'a': BOMB}, {'a': HUGE}],
        [{'a': [1, {'b': (2, None, 'x', True, 1e-9)}]}],
    ),
    'opt_kwargs': ([{'eps': NAN}, {'betas': [0.9, INF]}, {'x': DEEP}], [{'betas': [0.9, 0.99]}]),
    'opt': ([None, 1, [DEEP], {}], ['adamw']),
    'amp': ([0, 'true', None], [True]),
    'device_modules': (['timm', [1], DEEP], [[], ['timm']]),
}


@pytest.mark.parametrize('key', EDGES)
def test_the_bounds_of_a_key(key: str) -> None:
    outside, inside = EDGES[key]
    for value in outside:
        with pytest.raises(ValueError, match=f'^it has {key}: .*, but it must be ') as caught:
            recipe_of({'lr': 0.1, key: value}, 'it')
        assert len(str(caught.value)) < 1000
    for value in inside:
        assert getattr(recipe_of({'lr': 0.1, key: value}, 'it'), key) == value


@pytest.mark.parametrize('key', [f.name for f in fields(Recipe) if 'int' in str(f.type) or 'float' in str(f.type)])
def test_no_number_is_without_bounds(key: str) -> None:
    many = 'list' in str(next(f.type for f in fields(Recipe) if f.name == key))
    for value in (NAN, INF, -INF, HUGE, -HUGE):
        with pytest.raises(ValueError, match=f'^it has {key}: .*, but it must be '):
            recipe_of({'lr': 0.1, key: [value] * 3 if many else value}, 'it')


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({1: 2, None: 3, 'x': 4, (1, 2): 5, 'lr': 0.1}, r'does not know: \(1, 2\), 1, None, x'),
        ({HUGE: 1, 'lr': 0.1}, 'does not know: a very large int|does not know: <int instance'),
        ({NAN: 1}, 'does not know: nan'),
        ({}, 'has no lr'),
        (None, 'must be a mapping of keys to values, but is None'),
        ([DEEP], 'must be a mapping of keys to values'),
        ({'lr': '1e999'}, "has lr: '1e999', but it must be a number.$"),
        ({'lr': 'nan'}, "has lr: 'nan', but it must be a number.$"),
        ({'lr': '9' * 5000}, 'but it must be a number.$'),
        ({'lr': 0.1, 'opt': BOMB}, 'it has opt: .*, but it must be a text'),
    ],
)  # fmt: skip
def test_whatever_is_handed_over_is_a_recipe_or_an_error(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        recipe_of(values, 'it')
    assert len(str(caught.value)) < 1000
