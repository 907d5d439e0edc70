"""What a run needs to go on exactly where an epoch ended, in one file that is always complete.

timm's CheckpointSaver removes the last checkpoint before it puts the new one in place, so that a kill between the two
loses it, and it has no room for random states. The keys here are timm's, so that train.py, validate.py and timm's
loader read these files.
"""

import io
import random
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from timm_attn.files import write_whole
from timm_attn.training.engine import Engine
from timm_attn.weights.trained import read_training_file


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


def state_of(
    engine: Engine, epoch: int, model_name: str, rows: list[dict[str, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The state after an epoch (-1: before the first); every process must call this."""
    state: dict[str, Any] = dict(
        epoch=epoch, arch=model_name, version=2, rows=rows, recipe=vars(engine.recipe), options=dict(options),
        random=engine.processes.gather(random_states(engine.processes.device)),
        optimizer=engine.optimizer.state_dict(),
        **engine.task.get_checkpoint_state(),
        **engine.task.get_checkpoint_state(ema=True),
    )  # fmt: skip
    if engine.scaler is not None:
        state[engine.scaler.state_dict_key] = engine.scaler.state_dict()
    return state


def restore(engine: Engine, state: Mapping[str, Any], model_name: str, options: Mapping[str, Any], path: Path) -> None:
    """Puts an engine into a state.

    Raises:
        ValueError: it is another model's, another recipe's, or of another number of processes.
    """
    if state.get('arch') != model_name:
        raise ValueError(f'{path} is a checkpoint of {state.get("arch")!r}, not of {model_name!r}.')
    if 'random' not in state or 'recipe' not in state:
        raise ValueError(f'{path} was not written by this runner: it has no random states, so it cannot go on exactly.')
    ours, theirs = {**vars(engine.recipe), **options}, {**state['recipe'], **state['options']}
    short = reprlib.repr  # of a thousand class names the first
    differing = [f'{k} ({short(theirs.get(k))}, now {short(ours[k])})' for k in ours if theirs.get(k) != ours[k]]
    if differing:
        raise ValueError(f'{path} was trained otherwise: {", ".join(differing)}.')
    if len(state['random']) != engine.processes.count:
        raise ValueError(f'{path} is of {len(state["random"])} processes, but there are {engine.processes.count} now.')
    engine.task.load_checkpoint_state(state['state_dict'])
    if engine.task.has_ema():
        engine.task.load_checkpoint_state(state['state_dict_ema'], ema=True)
    engine.optimizer.load_state_dict(state['optimizer'])
    if engine.scaler is not None:
        engine.scaler.load_state_dict(state[engine.scaler.state_dict_key])
    set_random_states(state['random'][engine.processes.rank], engine.processes.device)


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
