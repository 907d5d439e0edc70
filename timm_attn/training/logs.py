"""The table of a run's epochs: a CSV file, and TensorBoard where it is wished for."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm_attn.files import write_whole


def one_line(row: Mapping[str, float]) -> str:
    """What was measured, for people: counts in full, the rest in six digits."""
    return ', '.join(f'{k} {v}' if isinstance(v, int) else f'{k} {v:.6g}' for k, v in row.items())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows under the keys of the first."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def open_tensorboard(folder: Path, first_epoch: int) -> Any:
    """A TensorBoard writer; what an earlier run wrote from that epoch on disappears from its curves.

    Raises:
        RuntimeError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError("TensorBoard is not installed: pip install 'timm-attn[tensorboard]'.") from error
    return SummaryWriter(str(folder), purge_step=first_epoch)
