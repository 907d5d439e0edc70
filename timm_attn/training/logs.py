"""The measurements of a run's epochs: one printed line each, and TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def one_line(row: Mapping[str, float]) -> str:
    """The values of an epoch: counts in full, the others with six digits."""
    return ', '.join(f'{k} {v}' if isinstance(v, int) else f'{k} {v:.6g}' for k, v in row.items())


def open_tensorboard(folder: Path, first_epoch: int) -> Any:
    """A TensorBoard writer; it discards what an earlier run wrote from that epoch on.

    Raises:
        RuntimeError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError("TensorBoard is not installed: pip install 'timm-attn[tensorboard]'.") from error
    return SummaryWriter(str(folder), purge_step=first_epoch)
