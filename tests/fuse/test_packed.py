"""Convolutions whose weights are laid out for the CPU once."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from timm_attn.fused_layers import PackedConv2d


@pytest.mark.parametrize('groups', [1, 4])
def test_a_packed_convolution(groups: int) -> None:
    """Of whatever size the map is, after whatever happened to the weight, wherever it is called."""
    conv = nn.Conv2d(8, 12, 3, stride=2, padding=(1, 2), dilation=(1, 2), groups=groups).requires_grad_(False)
    packed = PackedConv2d(conv)
    sizes = [(2, 8, 20, 24), (1, 8, 9, 31), (2, 8, 20, 24), (5, 8, 12, 12)]

    def check(expected: Any = conv) -> None:
        for size in sizes:
            x = torch.randn(size)
            for shown in (x, x.contiguous(memory_format=torch.channels_last), x[:, :, ::2]):
                torch.testing.assert_close(packed(shown), expected(shown), rtol=1e-4, atol=1e-5)

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            check()
            assert packed._packed is not None
            conv.weight.mul_(2)
            check()
            conv.weight.data = torch.randn_like(conv.weight)
            check()
    twin = copy.deepcopy(packed)
    assert twin._packed is pickle.loads(pickle.dumps(packed))._packed is None
    with torch.inference_mode():
        packed = PackedConv2d(copy.deepcopy(conv))
        check()
        packed.double()(torch.randn(sizes[0]).double())
        packed.float()
        check()
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        assert packed(torch.randn(sizes[0])).dtype == torch.bfloat16
    twin(torch.randn(sizes[0], requires_grad=True)).sum().backward()
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        twin(torch.randn(sizes[0]))
    assert twin._packed is None


def test_a_packed_convolution_whose_weight_is_at_the_address_of_an_old_one() -> None:
    conv = nn.Conv2d(64, 64, 3).requires_grad_(False)
    packed, x = PackedConv2d(conv), torch.randn(1, 64, 9, 9)
    for _ in range(8):
        for _ in range(2):
            state = {k: torch.randn_like(v) for k, v in conv.state_dict().items()}
            for layer in (conv, packed):
                layer.load_state_dict(state, assign=True)
        with torch.no_grad():
            torch.testing.assert_close(packed(x), conv(x), rtol=1e-4, atol=1e-4)
