"""Checkpoints: the complete state of a run after an epoch, in one file that is written atomically.

timm's CheckpointSaver removes the last checkpoint before it puts the new one in place, so that a kill between the two
loses it, and it has no room for random states. The keys here are timm's, so that train.py, validate.py and timm's
loader read these files.
"""

import copy
import io
import random
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from timm.utils import NativeScaler
from torch import Tensor, nn

from timm_attn.files import write_whole
from timm_attn.training.engine import make_optimizer
from timm_attn.training.fingerprint import IMAGES, difference
from timm_attn.training.processes import Processes
from timm_attn.training.recipe import Recipe
from timm_attn.training.run_config import Run
from timm_attn.weights.trained import read_training_file


class Resumable(Protocol):
    """What trains a model and can go on from a checkpoint."""

    processes: Processes
    model: nn.Module
    task: Any  # timm's
    optimizer: torch.optim.Optimizer
    scaler: NativeScaler | None
    epochs: range

    @property
    def recipe(self) -> Recipe: ...

    @property
    def columns(self) -> frozenset[str]:
        """Of a row of the run's table."""


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of all generators that training draws from, as tensors and plain values."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    states: dict[str, Any] = dict(
        torch=torch.get_rng_state(), python=random.getstate(), numpy=(name, keys.tolist(), *rest)
    )
    if device.type == 'cuda':
        states['cuda'] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Puts the generators back into these states."""
    torch.set_rng_state(states['torch'])
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    if 'cuda' in states:
        torch.cuda.set_rng_state(states['cuda'], device)


def state_of(engine: Resumable, epoch: int, run: Run, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The state after an epoch (-1: before the first); every process must call this."""
    state: dict[str, Any] = dict(
        epoch=epoch, version=2, rows=rows, **run.saved(),
        random=engine.processes.gather(random_states(engine.processes.device)),
        optimizer=engine.optimizer.state_dict(),
        **engine.task.get_checkpoint_state(),
        **engine.task.get_checkpoint_state(ema=True),
    )  # fmt: skip
    if engine.scaler is not None:
        state[engine.scaler.state_dict_key] = engine.scaler.state_dict()
    return state


def restore(engine: Resumable, state: Mapping[str, Any], run: Run, path: Path) -> None:
    """Puts an engine into a state; every process must call this.

    Raises:
        ValueError: it is another model's, another recipe's, of other images or another number of processes, or it is
            damaged; the engine is then unusable.
    """
    try:
        _check(engine, state, run, path)
        engine.task.load_checkpoint_state(state['state_dict'])
        if engine.task.has_ema():
            engine.task.load_checkpoint_state(state['state_dict_ema'], ema=True)
        engine.optimizer.load_state_dict(state['optimizer'])
        if engine.scaler is not None:
            engine.scaler.load_state_dict(state[engine.scaler.state_dict_key])
        set_random_states(state['random'][engine.processes.rank], engine.processes.device)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError) as error:
        raise ValueError(f'{path} is damaged, {type(error).__name__}: {" ".join(str(error).split())}') from error


def _check(engine: Resumable, state: Mapping[str, Any], run: Run, path: Path) -> None:
    """Raises a ValueError for a state that an engine cannot go on from, as far as it shows before loading."""
    if state.get('arch') != run.model:
        raise ValueError(f'{path} is a checkpoint of {state.get("arch")!r}, not of {run.model!r}.')
    if 'random' not in state or 'recipe' not in state:
        raise ValueError(f'{path} was not written by this runner: it has no random states, so it cannot go on exactly.')
    ours = state_of(engine, -1, run, [])
    for key, value in ours.items():
        kind = Mapping if isinstance(value, Mapping) else type(value)
        if not isinstance(state.get(key), kind):
            raise ValueError(f'{path} is damaged: its {key} is {reprlib.repr(state.get(key))}.')
    differing = _differing({**state['recipe'], **state['options']}, {**ours.pop('recipe'), **ours.pop('options')})
    if differing:
        raise ValueError(f'{path} was trained otherwise: {", ".join(differing)}.')
    if len(state['random']) != engine.processes.count:
        raise ValueError(f'{path} is of {len(state["random"])} processes, but there are {engine.processes.count} now.')
    epoch, rows = state['epoch'], state['rows']
    ended = epoch - engine.epochs.start + 1
    if not 0 <= ended <= len(engine.epochs) or [_number(row) for row in rows] != [*range(1, ended + 1)]:
        raise ValueError(f'{path} is damaged: it ends with epoch {epoch}, but its rows are {reprlib.repr(rows)}.')
    columns = engine.columns
    for row in rows:
        if row.keys() != columns:
            named = ', '.join(sorted(reprlib.repr(key) for key in row.keys() ^ columns))
            raise ValueError(f'{path} is damaged: a row has or lacks the columns {named}.')
    moments = _optimizer_after_a_step(engine)
    moments['state'] = {index: moments['state'][index] for index in state['optimizer']['state']}  # not of all
    _check_form(state, {**ours, 'optimizer': moments}, f'{path} is damaged: its')
    for weights in ('state_dict', 'state_dict_ema'):
        for key in ours.get(weights, ()):
            if not state[weights][key].isfinite().all():
                raise ValueError(f'{path} is damaged: its {weights} {key} has values that are not finite.')


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings of a run that differ from the checkpoint's."""
    short = reprlib.repr  # cuts long lists of class names
    found = {
        key: difference(then.get(key), value) if key in IMAGES else f'{short(then.get(key))}, now {short(value)}'
        for key, value in now.items()
        if then.get(key) != value
    }
    return [f'{key} ({differs})' for key, differs in found.items()]


def _number(row: Any) -> Any:
    """The epoch of a row of the table; None where a value is no number."""
    return row['epoch'] if all(isinstance(value, (int, float)) for value in row.values()) else None


def _optimizer_after_a_step(engine: Resumable) -> dict[str, Any]:
    """The state of an optimiser of the same kind after a step in which every parameter has a gradient."""
    model = copy.deepcopy(engine.model)
    optimizer = make_optimizer(model, engine.recipe)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def _check_form(theirs: Any, ours: Any, what: str) -> None:
    """Raises a ValueError for a tensor of another shape or type than ours, or something else instead of a number.

    KeyError, IndexError or TypeError where a mapping or list lacks what ours has; it may have more.
    """
    if isinstance(ours, (Mapping, list)):
        for key, value in ours.items() if isinstance(ours, Mapping) else enumerate(ours):
            _check_form(theirs[key], value, f'{what} {key}')
    elif isinstance(ours, Tensor):
        if not isinstance(theirs, Tensor) or (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            raise ValueError(f'{what} is {_form(theirs)}, but must be {_form(ours)}.')
    elif isinstance(ours, (int, float)) and not isinstance(theirs, (int, float)):
        raise ValueError(f'{what} is {_form(theirs)}, but must be a number.')


def _form(value: Any) -> str:
    return f'{value.dtype} {list(value.shape)}' if isinstance(value, Tensor) else reprlib.repr(value)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint in place of the last one, which stays until the new one is complete on the disk.

    Raises:
        RuntimeError: there is no space for it; the last one is still there.
    """
    buffer = io.BytesIO()  # torch.save to a full disk aborts the process
    torch.save(dict(state), buffer)
    write_whole(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not one.
    """
    state = read_training_file(path)
    if 'state_dict' not in state:
        raise ValueError(f'{path} is not a checkpoint of a training: it has no state_dict.')
    return dict(state)
