"""A run from its first epoch to its last: measurements, checkpoints and the weights at its end."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from safetensors.torch import save
from torch import Tensor

from timm_attn.files import write_csv, write_whole
from timm_attn.training import checkpoint
from timm_attn.training.engine import NonFiniteLossError
from timm_attn.training.logs import one_line
from timm_attn.training.run_config import Run

LAST = 'last.pth.tar'  # timm's name


class Trains(checkpoint.Resumable, Protocol):
    """What trains a model epoch by epoch."""

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch: the beginning of its row of the table."""


@dataclass(frozen=True)
class Epochs:
    """A run at work."""

    run: Run
    engine: Trains
    output: Path
    rows: list[dict[str, Any]]  # of the epochs so far
    measured: Callable[[int], Mapping[str, Any]]  # the end of the row of an epoch, by its number
    writer: Any = None  # TensorBoard's

    def finish(self) -> None:
        """Trains the epochs that are left, with a checkpoint after each, and one before the first of all."""
        engine, output, rows = self.engine, self.output, self.rows
        primary, start = engine.processes.primary, engine.epochs.start
        if primary:
            write_whole(output / 'recipe.yaml', yaml.safe_dump(vars(self.run.recipe)).encode())
            if rows:  # a kill may have come between the checkpoint and the table
                write_csv(output / 'summary.csv', rows)
        try:
            if not rows:
                self._save_state(start - 1)
            for epoch in range(start + len(rows), engine.epochs.stop):
                row = engine.epoch(epoch)
                rows.append({**row, **self.measured(row['epoch'])})
                self._save_state(epoch)
                if primary:
                    _report(output, rows, self.writer)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f'{error} {self._kept()}.') from error
        except KeyboardInterrupt:
            raise RuntimeError(f'Interrupted. {self._kept()}; --resume goes on from there.') from None
        if primary:
            self._write_weights()
        engine.processes.gather(None)  # until all is written

    def _save_state(self, epoch: int) -> None:
        state = checkpoint.state_of(self.engine, epoch, self.run, self.rows)
        if self.engine.processes.primary:
            checkpoint.save(self.output / LAST, state)

    def _kept(self) -> str:
        last, rows = self.output / LAST, self.rows
        return f'{last} has the run up to the end of epoch {rows[-1]["epoch"]}' if rows else f'{last} has its beginning'

    def _write_weights(self) -> None:
        task = self.engine.task
        states: dict[str, Mapping[str, Tensor]] = {**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)}
        saved = self.run.saved()
        metadata = dict(format='pt', arch=saved['arch'], **{k: json.dumps(saved[k]) for k in ('recipe', 'options')})
        for key, state in states.items():
            name = 'last.safetensors' if key == 'state_dict' else 'last_ema.safetensors'
            write_whole(self.output / name, save({k: v.cpu().contiguous() for k, v in state.items()}, metadata))


def resumed(engine: Trains, run: Run, last: Path) -> list[dict[str, Any]]:
    """Restores an engine from a checkpoint and returns the rows of the epochs that it has behind it."""
    state = checkpoint.load(last)
    checkpoint.restore(engine, state, run, last)
    rows: list[dict[str, Any]] = state['rows']
    return rows


def _report(output: Path, rows: list[dict[str, Any]], writer: Any) -> None:
    print(one_line(rows[-1]), flush=True)
    write_csv(output / 'summary.csv', rows)
    if writer is not None:
        for name, value in rows[-1].items():
            writer.add_scalar(name, value, rows[-1]['epoch'])
        writer.flush()
