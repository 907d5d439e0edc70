"""Costs of layers and nets: what the papers count, what can be counted by hand, what training keeps."""

import pytest
import timm
import torch
from torch import Tensor, nn

from timm_attn import analysis
from timm_attn.attach import attention_layers
from timm_attn.paper import counting


@pytest.mark.parametrize('name', ['cifar_resnet20_se', 'cifar_resnet20_simam', 'resnet18_bam', 'mobilenetv2_eca'])
def test_cost_counts_what_the_papers_count(name: str) -> None:
    model = timm.create_model(name)
    *layers, net = analysis.cost_report(model, torch.randn(1, 3, 32, 32), repeats=1)
    assert [c.path for c in layers] == list(attention_layers(model)) and net.path == '(whole net)'
    assert net.params == counting.params(model) and net.macs == counting.macs(model, (3, 32, 32))
    found = attention_layers(model)
    for cost in layers:
        assert cost.kind == type(found[cost.path]).__name__ and cost.params == counting.params(found[cost.path])
        if cost.params:  # counting.macs asks a parameter for its device
            assert cost.macs == counting.macs(found[cost.path], cost.shape[1:])
        size = 4 * torch.Size(cost.shape).numel()
        assert cost.saved_bytes >= size and cost.moved_bytes >= 2 * size and cost.milliseconds > 0
    assert net.saved_bytes > sum(c.saved_bytes for c in layers) and net.milliseconds > layers[0].milliseconds


def test_cost_of_operations_that_can_be_counted_by_hand() -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()  # reads and writes a map, saves its result
            gate = y.mean(dim=(2, 3), keepdim=True).expand_as(y)  # reads a map, writes 6 numbers
            y = y * gate  # reads a map and 6 numbers, writes a map, saves both
            return y.view(2, -1, 4, 5).transpose(2, 3)  # moves nothing

    net = nn.Sequential(Layer())
    layer, whole = analysis.cost_report(net, torch.randn(2, 3, 4, 5), ['0'], repeats=1)
    assert layer.kind == 'Layer' and layer.shape == (2, 3, 4, 5)
    assert (layer.params, layer.macs) == (0, 0)
    size, gates = 4 * 120, 4 * 6
    assert layer.moved_bytes == whole.moved_bytes == 5 * size + 2 * gates
    assert layer.saved_bytes == whole.saved_bytes == size + gates


def test_saved_bytes_leave_the_parameters_out() -> None:
    conv = analysis.cost_report(nn.Sequential(nn.Conv2d(3, 50, 1)), torch.randn(2, 3, 4, 5), ['0'], repeats=1)[0]
    assert conv.saved_bytes == 4 * 120 and conv.params == 200 and conv.macs == 2 * 20 * 3 * 50


def test_simam_saves_what_its_formula_keeps() -> None:
    """Four copies of the map in the formula as torch runs it; fewer with a backward pass of its own."""
    model = timm.create_model('cifar_resnet20_simam')
    cost = analysis.cost_report(model, torch.randn(1, 3, 32, 32), ['layer1.0.conv_attn'], repeats=1)[0]
    assert 1 <= cost.saved_bytes / (4 * 16 * 32 * 32) < 4.1


def test_cost_of_any_net() -> None:
    model = timm.create_model('regnetx_002')
    images = torch.randn(1, 3, 64, 64)
    alone, _ = analysis.cost_report(model, images, ['s1.b1'], repeats=1)
    outer, *_ = analysis.cost_report(model, images, ['s1.b1', 's1.b1.conv1'], repeats=1)
    assert (outer.path, outer.macs, outer.moved_bytes) == ('s1.b1', alone.macs, alone.moved_bytes)
    assert [c.path for c in analysis.cost_report(model, images, repeats=1)] == [
        'stem',
        's1',
        's2',
        's3',
        's4',
        '(whole net)',
    ]
    assert analysis.cost_report(model, images, ['s1.b1.conv1'], repeats=1)[0].kind == 'ConvNormAct'
    with pytest.raises(ValueError, match="RegNet has no layer 's9'; its layers are stem, stem.conv"):
        analysis.cost_report(model, images, ['s9'])
    with pytest.raises(ValueError, match='repeats must be positive, but got 0'):
        analysis.cost_report(model, images, repeats=0)
    with pytest.raises(ValueError, match='The cost of a batch needs at least one image, but got none'):
        analysis.cost_report(model, images[:0])
