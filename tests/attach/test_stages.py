"""Which module gives a stage's output: in front of an addition in place, the same tensor is another map."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import timm_attn
from timm_attn.attach import attention_layers, placements


class Residual(nn.Module):
    """conv + x, with the addition in place, and an activation that may be in place."""

    def __init__(self, act: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 8, 1)
        if act is not None:
            self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.point(self.conv(x))
        y += x
        return self.act(y) if hasattr(self, 'act') else y


class Net(nn.Module):
    def __init__(self, act: nn.Module | None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.body = Residual(act)
        self.feature_info = [dict(module='stem', num_chs=8, reduction=2), dict(module='body', num_chs=8, reduction=2)]

    def forward(self, x: Tensor) -> Any:
        return self.body(self.stem(x)).mean((2, 3))


@pytest.mark.parametrize(
    'act, path', [(None, 'body.attn'), (nn.ReLU(), 'body.act.attn'), (nn.ReLU(inplace=True), 'body.act.attn')]
)
def test_the_attention_sees_the_whole_stage(act: nn.Module | None, path: str) -> None:
    net = timm_attn.attach(Net(act), 'eca', at='stages', example=torch.zeros(1, 3, 16, 16)).eval()
    assert list(attention_layers(net)) == [path]
    assert [row.path for row in placements(net) if row.how == 'skipped'] == ['stem']
    x = torch.randn(2, 3, 16, 16)
    seen: list[Tensor] = []
    attention_layers(net)[path].register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].clone()))
    net(x)
    plain = Net(act).eval()
    plain.load_state_dict({k.replace('module.', ''): v for k, v in net.state_dict().items() if '.attn' not in k})
    torch.testing.assert_close(seen[0], plain.body(plain.stem(x)))


def test_a_feature_that_names_no_module_is_no_stage() -> None:
    """TResNet's stem is '' in feature_info, which is the whole net."""
    net = Net(None)
    net.feature_info.append(dict(module='', num_chs=8, reduction=2))
    timm_attn.attach(net, 'eca', at='stages', example=torch.zeros(1, 3, 16, 16))
    assert [row.path for row in placements(net) if row.how == 'skipped'] == ['stem']
    assert '' not in dir(net) and torch.jit.script(net) is not None
