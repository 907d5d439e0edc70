"""The logits of the authors' own code, and the weights that they were computed with."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

ROWS = {
    row['name']: row
    for name in ('reference_logits.json', 'pytorchcv_logits.json')
    for row in json.loads((Path(__file__).parents[1] / 'vectors' / name).read_text())['rows']
}


def model_name(row_name: str) -> str:
    return row_name.partition('[')[0]


# What a row's note says of the layers, as our options.
ATTN_KWARGS = {'cifar_resnet56_se': dict(reduction=4)}


def fill(key: str, shape: list[int]) -> torch.Tensor:
    """The tensor that the vectors' authors put under a key."""
    rs = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    if not shape:
        return torch.tensor(0)
    if key.endswith('running_var'):
        values = 0.5 + rs.random_sample(shape)
    elif key.endswith('running_mean'):
        values = 0.1 * rs.standard_normal(shape)
    elif len(shape) == 1:
        values = 0.5 + rs.random_sample(shape) if key.endswith('weight') else 0.1 * rs.standard_normal(shape)
    else:
        values = rs.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def reference_state_dict(row_name: str) -> dict[str, torch.Tensor]:
    return {key: fill(key, shape) for key, shape in ROWS[row_name]['keys']}
