"""replace=True with start='identity': the new layers begin at the mean gate of those that they replace."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import EcaModule, SEModule
from torch import Tensor, nn
from warm_start_pairs import with_trained_norms

import timm_attn
from tests.support.trained import is_unchanged, outputs, real_images, state_of
from timm_attn.attach import placements
from timm_attn.attach.gates import mean_gates
from timm_attn.attach.spot import Spot

SHORT = dict(layers=(1, 1, 1, 1))
# A small net of every family with attention of its own, and its layers
NETS: dict[str, tuple[dict[str, Any], int]] = {
    'ecaresnet50t': (SHORT, 4),
    'ese_vovnet19b_slim_dw': ({}, 4),
    'mobilenetv3_small_050': ({}, 9),
    'regnety_002': ({}, 13),
    'seresnet18': (SHORT, 4),
    'test_efficientnet': ({}, 2),
}
REPORT = 'The start of layers that replace trained attention is approximate, by its mean gate'


def with_constant_gates(model: Any) -> Any:
    """Every old gate is a constant per channel, so that its mean is all of it."""
    for module in model.modules():
        last = next((getattr(module, name) for name in ('fc2', 'conv_expand', 'fc') if hasattr(module, name)), None)
        if isinstance(module, EcaModule):
            nn.init.zeros_(module.conv.weight)
        elif isinstance(last, nn.Conv2d):
            nn.init.zeros_(last.weight)
            nn.init.normal_(last.bias, std=0.5)
    return model


@pytest.mark.parametrize('name', NETS)
def test_a_constant_gate_is_replaced_exactly(name: str) -> None:
    torch.manual_seed(0)
    model = with_constant_gates(with_trained_norms(timm.create_model(name, **NETS[name][0]).eval()))
    x = torch.randn(2, 3, 64, 64)
    expected = outputs(model, x)
    with pytest.warns(UserWarning, match=rf'{REPORT}: the outputs of \w+ differ by 0\.0% of their size on an image of'):
        timm_attn.attach(model, 'cbam', replace=True, start='identity', example=None)
    found = outputs(model, x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    rows = [row for row in placements(model) if row.how == 'replaced']
    assert len(rows) == NETS[name][1] and {row.factor for row in rows} == {0.25}
    assert all('of the mean gate 0.' in row.note for row in rows)


@pytest.mark.parametrize('old, new, most', [('eca', 'cbam', 0.45), ('se', 'gc', 0.06), ('cbam', 'eca', 0.42)])
def test_a_trained_net_stays_near_itself(old: str, new: str, most: float) -> None:
    """By the root mean square of the difference, relative to the outputs."""
    x = real_images(100, 'validation')
    found = {}
    for how in (None, 'drawn', 'example'):
        model = timm.create_model(f'cifar_resnet20_{old}', pretrained=True).eval()
        expected = outputs(model, x)
        kwargs: dict[str, Any] = {} if how is None else dict(start='identity')
        if how == 'example':
            kwargs['example'] = real_images(128)
        if how is None:
            timm_attn.attach(model, new, replace=True)
        else:
            with pytest.warns(UserWarning, match='on the example' if how == 'example' else 'of noise') as caught:
                timm_attn.attach(model, new, replace=True, **kwargs)
            assert Path(caught[-1].filename) == Path(__file__)
        found[how] = float((outputs(model, x) - expected).square().mean().sqrt() / expected.square().mean().sqrt())
        assert len(placements(model)) == len({row.path for row in placements(model)})
    assert found['example'] < found['drawn'] < most < found[None]


class Gated(nn.Module):
    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.se, self.behind = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), SEModule(16), behind

    def forward(self, x: Tensor) -> Any:
        return self.behind(self.se(torch.tanh(self.norm(self.conv(x)))))


def test_what_cannot_be_scaled_is_refused_and_as_before() -> None:
    model = Gated(nn.Tanh())
    modules, before = repr(model), state_of(model)
    with pytest.raises(ValueError, match=r'cannot start as its plain net: .*gate\(se\)\^-1'):
        timm_attn.attach(model, 'eca', at='se', replace=True, start='identity', example=torch.randn(1, 3, 16, 16))
    assert repr(model) == modules and is_unchanged(model, before) and placements(model) == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_mean_gate() -> None:
    """Over maps that are drawn from the norm in front, or over those of images; a channel that is 0 has the layer's."""
    model: Any = nn.Sequential(nn.BatchNorm2d(3), EcaModule(3, kernel_size=3)).eval()
    nn.init.constant_(model[0].bias, 2.0)
    model[0].weight.data[2] = model[0].bias.data[2] = 0
    spot = Spot('1', model, '1', model[1], replace=True, channels=3)
    x = torch.randn(4, 3, 32, 32) - 2
    by_images, drawn = (mean_gates(model, [spot], x, drawn=drawn)[0] for drawn in (False, True))
    gate = torch.sigmoid(model[1].conv(torch.tensor([[[2.0, 2.0, 0.0]]]))).flatten()
    torch.testing.assert_close(drawn[:2].float(), gate[:2], rtol=0.02, atol=0)
    torch.testing.assert_close(drawn[2], drawn[:2].mean(), rtol=0.05, atol=0)
    means = model[0](x).mean((0, 2, 3))
    torch.testing.assert_close(
        by_images[:2].float(), torch.sigmoid(model[1].conv(means[None, None])).flatten()[:2], rtol=0.02, atol=0
    )
    assert not torch.allclose(by_images, drawn, rtol=0.05)
