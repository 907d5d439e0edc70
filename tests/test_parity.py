"""Our nets against the code of the authors and of pytorchcv: logits under a deterministic weight fill, in float64."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import timm_attn

ROWS = {
    row['name']: row
    for name in ('reference_logits.json', 'pytorchcv_logits.json')
    for row in json.loads((Path(__file__).parent / 'vectors' / name).read_text())['rows']
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


@pytest.mark.parametrize('row_name', ROWS)
def test_logits_are_the_authors(row_name: str) -> None:
    row = ROWS[row_name]
    weights = timm_attn.convert_state_dict(reference_state_dict(row_name), model_name(row_name))
    num_classes = row['keys'][-1][1][0]
    options = {'attn_kwargs': ATTN_KWARGS[row_name]} if row_name in ATTN_KWARGS else {}
    model = timm.create_model(model_name(row_name), num_classes=num_classes, **options).double()
    model.load_state_dict(weights, strict=True)
    images = torch.from_numpy(np.random.RandomState(0).standard_normal(row['input_size']))
    with torch.inference_mode():
        logits = model.eval()(images)
    error = (logits[:, :16] - torch.tensor(row['logits'], dtype=torch.float64)).abs().max().item()
    assert error <= 1e-9 * row['abs_mean']
    assert abs(logits.abs().mean().item() - row['abs_mean']) <= 1e-9 * row['abs_mean']
    assert sum(p.numel() for p in model.parameters()) == row['num_params']
