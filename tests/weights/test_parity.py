"""Our nets against the code of the authors and of pytorchcv: logits under a deterministic weight fill, in float64."""

import numpy as np
import pytest
import timm
import torch

import timm_attn
from tests.support.vectors import ATTN_KWARGS, ROWS, model_name, reference_state_dict


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
