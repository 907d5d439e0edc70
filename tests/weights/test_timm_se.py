"""The layout of timm's own SE nets, whose gates are 1x1 convolutions with biases where ours are linear layers."""

from typing import Any

import pytest
import timm
import torch

import timm_attn
from tests.support.nets import trained_like

NETS = [('seresnet50', 'resnet50_se'), ('seresnext50_32x4d', 'resnext50_32x4d_se')]
BIAS: dict[str, Any] = dict(attn_kwargs=dict(bias=True))


@pytest.mark.parametrize('theirs, ours', NETS)
def test_logits_are_timms(theirs: str, ours: str) -> None:
    net = timm.create_model(theirs, device='meta').eval()
    state = trained_like(net.state_dict())
    net.load_state_dict(state, assign=True)
    model = timm.create_model(ours, device='meta', **BIAS).eval()
    model.load_state_dict(timm_attn.convert_state_dict(state, ours, **BIAS), strict=True, assign=True)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, expected = model(x), net(x)
    assert (logits - expected).abs().max() < 1e-12 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max(), 'they depend on the image'


def test_biases_and_widths_must_be_the_models() -> None:
    state = timm.create_model('seresnet50', device='meta').state_dict()
    with pytest.raises(ValueError, match=r'does not fit resnet50_se: .* such as layer1\.0\.se\.fc1\.bias'):
        timm_attn.convert_state_dict(state, 'resnet50_se')
    with pytest.raises(ValueError, match=r'does not fit resnext50_32x4d_se: layer1\.0\.conv1\.weight has shape'):
        timm_attn.convert_state_dict(state, 'resnext50_32x4d_se', **BIAS)
    narrow: dict[str, Any] = dict(attn_kwargs=dict(bias=True, reduction=32))
    model = timm.create_model('resnet50_se', device='meta', **narrow)
    with pytest.raises(RuntimeError, match=r'fc1\.weight: .*Size\(\[16, 256\]\) .* torch\.Size\(\[8, 256\]\)'):
        model.load_state_dict(timm_attn.convert_state_dict(state, 'resnet50_se', **narrow))
