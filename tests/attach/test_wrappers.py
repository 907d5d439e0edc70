"""The wrapper around a module is the module for whoever asks it for something else than its output."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from timm_attn.attach.wrappers import Attended
from timm_attn.attention import SE


class Stage(nn.Module):
    """With an attribute that timm sets, and a child of the name that the wrapper uses."""

    def __init__(self) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.attn = SE(8, reduction=2)
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.attn(x))  # type: ignore[no-any-return]


def test_attributes_are_those_of_the_module() -> None:
    stage = Stage()
    wrapper: Any = Attended(stage, SE(8, reduction=2))
    wrapper.grad_checkpointing = True
    assert stage.grad_checkpointing and wrapper.conv is stage.conv
    wrapper.mine = 1
    assert not hasattr(stage, 'mine')
    with pytest.raises(AttributeError, match='nowhere'):
        wrapper.nowhere  # noqa: B018
    assert not wrapper.eval().training and not stage.training
    assert copy.deepcopy(wrapper).grad_checkpointing


def test_copies_are_of_the_wrapper() -> None:
    """Also around a module that copies itself, as one with a parametrization does."""
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
    wrapper = Attended(conv, SE(8, reduction=2)).eval()
    x = torch.randn(2, 8, 4, 4)
    copied = copy.deepcopy(wrapper)
    assert type(copied) is Attended and torch.equal(copied(x), wrapper(x))


def test_it_loads_its_own_state_the_modules_and_the_attentions() -> None:
    """Also where the module has parameters of the same names as the attention."""
    stage = Stage()
    net = nn.ModuleDict({'stage': Attended(Stage(), SE(8, reduction=2))})
    attention = copy.deepcopy(net['stage'].attn.state_dict())
    plain = {f'stage.{key}': value for key, value in stage.state_dict().items()}
    missing, unexpected = net.load_state_dict(plain, strict=False)
    assert missing == [f'stage.attn.{key}' for key in attention] and not unexpected
    assert torch.equal(net['stage'].module.attn.fc1.weight, stage.attn.fc1.weight)
    assert torch.equal(net['stage'].attn.fc1.weight, attention['fc1.weight'])
    other = nn.ModuleDict({'stage': Attended(Stage(), SE(8, reduction=2))})
    other.load_state_dict(net.state_dict(), strict=True)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    conv = nn.ModuleDict({'stage': Attended(nn.Conv2d(8, 8, 1), SE(8, reduction=2))})
    ours = {key: value + 1 for key, value in conv.state_dict().items() if '.attn.' in key}
    missing, unexpected = conv.load_state_dict(ours, strict=False)
    assert all('.module.' in key for key in missing) and not unexpected
    assert all(torch.equal(conv.state_dict()[key], value) for key, value in ours.items())
