"""The speed column of SimAM Table 3: frames per second on a GTX 1080 Ti, one image at a time, mean of 500."""

from typing import NamedTuple

from timm_attn.paper.compare import printed


class Speed(NamedTuple):
    """A printed speed.

    Args:
        row: as the table names it.
        model, base: our model and its plain net.
        fps: frames per second.
    """

    row: str
    model: str
    base: str
    fps: int


def printed_speeds() -> list[Speed]:
    """The rows of the tables that print a speed, the plain net of a backbone first."""
    rows = (row for table in printed()['tables'] for row in table['rows'])
    return [Speed(row['row'], row['models'][0], row['base'], int(row['fps'])) for row in rows if 'fps' in row]
