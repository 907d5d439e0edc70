"""The idx format of MNIST-like data: big-endian header, then unsigned bytes."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

UINT8 = 0x08


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, gzipped or not.

    Raises:
        ValueError: the file is not one, or is cut off.
    """
    opener = gzip.open if path.suffix == '.gz' else open
    try:
        with opener(path, 'rb') as f:
            content: bytes = f.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f'{path} is damaged: {error}.') from error
    if len(content) < 4 or content[:3] != bytes([0, 0, UINT8]) or len(content) < 4 + 4 * content[3]:
        raise ValueError(
            f'{path} is not an idx file of unsigned bytes: it starts with {content[:4].hex() or "nothing"}.'
        )
    dims = content[3]
    shape = struct.unpack(f'>{dims}I', content[4 : 4 + 4 * dims])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dims)
    if values.size != np.prod(shape):
        raise ValueError(f'{path} holds {values.size} values, but its header announces {shape}.')
    return values.reshape(shape)


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Writes a gzipped idx file, the same bytes for the same array."""
    header = bytes([0, 0, UINT8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape)
    with path.open('wb') as f, gzip.GzipFile(filename='', fileobj=f, mode='wb', mtime=0) as packed:
        packed.write(header + array.tobytes())
