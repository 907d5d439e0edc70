"""A last.pth.tar that is not as the runner wrote it ends in a sentence, with nothing written."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.images import MODEL, assert_same_weights, interrupted, short, write_folders
from timm_attn.training import checkpoint
from timm_attn.training.recipe import Recipe
from timm_attn.training.runner import train

RECIPE: dict[str, Any] = dict(epochs=2, batch_size=10, model_ema=True, model_ema_decay=0.5)
GONE = type('Gone', (), {'__repr__': lambda self: 'gone'})()  # the same text in every process of pytest
# Where in a checkpoint, what is there instead, what is said.
DAMAGES: list[tuple[tuple[Any, ...], Any, str]] = [
    (('rows',), GONE, 'its rows is None'),
    (('rows',), [], 'ends with epoch 1, but its rows are'),
    (('rows',), [1, 2], 'AttributeError'),
    (('rows', 1, 'epoch'), 'two', 'ends with epoch 1, but its rows are'),
    (('rows', 1, 'epoch'), GONE, "KeyError: 'epoch'"),
    (('rows', 0, 'odd'), 1.0, "a row has or lacks the columns 'odd'"),
    (('rows', 1, 5), 1.0, 'a row has or lacks the columns 5'),
    (('rows', 0, 'lr'), GONE, "a row has or lacks the columns 'lr'"),
    (('rows',), [{'epoch': 1, 'x': 0}, {'epoch': 2, 'x': 0}], "a row has or lacks the columns .*'lr', .*'x'"),
    (('epoch',), 'one', "its epoch is 'one'"),
    (('epoch',), 10**9, 'ends with epoch 1000000000'),
    (('epoch',), -5, 'ends with epoch -5'),
    (('epoch',), GONE, 'its epoch is None'),
    (('options',), 5, 'The options in .* must be a mapping of keys to values, but is 5'),
    (('options',), GONE, 'its options is None'),
    (('options', 'training images'), 'x', r'trained otherwise: training images \(it does not say'),
    (('options', 'holdout'), torch.zeros(2), 'RuntimeError: Boolean value of Tensor'),
    (('recipe', 'lr'), GONE, r'trained otherwise: lr \(None, now 0.05\)'),
    (('recipe', 'lr'), [[1]], r'trained otherwise: lr \(\[\[1\]\], now 0.05\)'),
    (('state_dict',), 5, 'its state_dict is 5'),
    (('state_dict', 'fc.bias'), GONE, "KeyError: 'fc.bias'"),
    (('state_dict', 'fc.bias'), torch.zeros(3), r'state_dict fc.bias is torch.float32 \[3\], but must be .*\[2\]'),
    (('state_dict', 'fc.bias'), torch.zeros(2, dtype=torch.int8), 'state_dict fc.bias is torch.int8'),
    (('state_dict', 'fc.bias'), None, 'state_dict fc.bias is None'),
    (('state_dict', 'more'), torch.zeros(1), 'RuntimeError: .*Unexpected key'),
    (('state_dict_ema',), GONE, 'its state_dict_ema is None'),
    (('state_dict_ema', 'fc.bias'), torch.zeros(3), 'state_dict_ema fc.bias'),
    (('state_dict', 'fc.bias'), torch.tensor([0, torch.nan]), 'its state_dict fc.bias has values that are not finite'),
    (('state_dict_ema', 'bn1.running_var'), torch.full((16,), torch.inf), 'its state_dict_ema bn1.running_var has val'),
    (('optimizer',), GONE, 'its optimizer is None'),
    (('optimizer', 'state'), GONE, "KeyError: 'state'"),
    (('optimizer', 'state', 0, 'momentum_buffer'), torch.zeros(1), r'state 0 momentum_buffer is torch.float32 \[1\]'),
    (('optimizer', 'state', 0, 'momentum_buffer'), GONE, "KeyError: 'momentum_buffer'"),
    (('optimizer', 'state', 0, 'momentum_buffer'), 5, 'state 0 momentum_buffer is 5'),
    (('optimizer', 'state', 999), {}, 'KeyError: 999'),
    (('optimizer', 'param_groups'), [], 'IndexError'),
    (('optimizer', 'param_groups', 0, 'params'), [0], 'IndexError'),
    (('optimizer', 'param_groups', 0, 'momentum'), GONE, "KeyError: 'momentum'"),
    (('optimizer', 'param_groups', 0, 'lr'), 'fast', "lr is 'fast', but must be a number"),
    (('random',), {}, 'its random is {}'),
    (('random', 0), None, 'TypeError'),
    (('random', 0, 'torch'), torch.zeros(5, dtype=torch.uint8), r'random 0 torch is torch.uint8 \[5\]'),
    (('random', 0, 'torch'), GONE, "KeyError: 'torch'"),
    (('random', 0, 'python'), (3, (1, 2), None), 'state vector is the wrong size'),
    (('random', 0, 'numpy'), ('MT19937', [1, 2], 0, 0, 0.0), 'state must be|is damaged'),
]


@pytest.fixture(scope='module')
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp('damaged')
    images = write_folders(root / 'images', 20, classes=2)
    train(short(**RECIPE), MODEL, images, root / 'out')
    return images, root / 'out' / 'last.pth.tar'


def damaged(state: dict[str, Any], where: tuple[Any, ...], value: Any) -> dict[str, Any]:
    state = copy.deepcopy(state)
    inner: Any = state
    for key in where[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    return state


@pytest.mark.parametrize(('where', 'value', 'message'), DAMAGES, ids=[str(d[:2])[:60] for d in DAMAGES])
def test_a_damaged_checkpoint(
    where: tuple[Any, ...], value: Any, message: str, run: tuple[Path, Path], tmp_path: Path
) -> None:
    images, whole = run
    checkpoint.save(tmp_path / 'last.pth.tar', damaged(checkpoint.load(whole), where, value))
    before = (tmp_path / 'last.pth.tar').read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        train(short(**RECIPE), MODEL, images, tmp_path, resume=True)
    assert str(tmp_path) in str(caught.value) or 'state' in message
    assert {path.name for path in tmp_path.iterdir()} == {'last.pth.tar', '.lock'}
    assert (tmp_path / 'last.pth.tar').read_bytes() == before


@pytest.mark.parametrize(
    'opt', ['adamw', 'adafactor', 'lookahead_momentum', 'muon', 'rmsproptf', 'lamb', 'adafactorbv']
)
def test_every_optimizer_goes_on(opt: str, small: Path, tmp_path: Path) -> None:
    """What their states look like is read off the optimiser, not assumed."""
    recipe = short(epochs=2, batch_size=10, opt=opt, lr=0.001)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    train(recipe, MODEL, small, whole)
    interrupted(recipe, MODEL, small, broken)
    train(recipe, MODEL, small, broken, resume=True)
    assert_same_weights(whole, broken)


def test_another_kernel_of_eca_is_a_sentence(small: Path, tmp_path: Path) -> None:
    def recipe(kernel: int) -> Recipe:
        return short(epochs=1, batch_size=10, model_kwargs=dict(attn_kwargs=dict(kernel_size=kernel)))

    train(recipe(3), 'cifar_resnet20_eca', small, tmp_path)
    with pytest.raises(ValueError, match='trained otherwise: model_kwargs'):
        train(recipe(5), 'cifar_resnet20_eca', small, tmp_path, resume=True)
    state = checkpoint.load(tmp_path / 'last.pth.tar')
    state['recipe']['model_kwargs'] = dict(attn_kwargs=dict(kernel_size=5))
    checkpoint.save(tmp_path / 'last.pth.tar', state)
    with pytest.raises(ValueError, match=r'is torch.float32 \[1, 1, 3\], but must be .*\[1, 1, 5\]'):
        train(recipe(5), 'cifar_resnet20_eca', small, tmp_path, resume=True)


def test_a_state_is_plain(run: tuple[Path, Path]) -> None:
    """Whatever reads it needs no code of ours."""
    state = torch.load(run[1], weights_only=True)
    assert all(isinstance(value, Tensor) for value in state['state_dict'].values())
