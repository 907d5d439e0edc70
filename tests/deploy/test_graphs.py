"""What the graph of an attention layer may not have, as an engine is wrong, slow or at a loss with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from timm_attn import ATTENTION

Wrong = Callable[[fx.Node], bool]


def name(node: fx.Node) -> str:
    """Such as `linear`; '' for what is no operation."""
    return str(node.target).split('.')[1] if node.op == 'call_function' and 'aten.' in str(node.target) else ''


def computes_its_weight(node: fx.Node) -> bool:
    weights: Any = node.args[1:3] if name(node) in ('linear', 'conv1d', 'conv2d') else ()
    return any(isinstance(weight, fx.Node) and weight.op != 'placeholder' for weight in weights)


def joins_batches(node: fx.Node) -> bool:
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get('dim', 0)
    return name(node) in ('stack', 'cat') and axis == 0


def mixes_in_integers(node: fx.Node) -> bool:
    return name(node).rstrip('_') in ('add', 'sub', 'mul', 'div') and any(type(arg) is int for arg in node.args)


WRONG: dict[str, Wrong] = {
    'a weight that is computed: ncnn and pt2e want constants': computes_its_weight,
    'maps joined along the batch: ncnn has no batch and computes something else': joins_batches,
    'integers among floats: the quantizer of LiteRT makes them tensors of integers': mixes_in_integers,
    'squeeze: an If in ONNX': lambda node: name(node) == 'squeeze',
}


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('wrong', WRONG)
def test_layers(wrong: str, attention: str) -> None:
    row = ATTENTION[attention]
    layer = row.layer(32, **row.defaults).eval()
    graph = torch.export.export(layer, (torch.randn(2, 32, 6, 5),)).graph
    assert sum(name(node) != '' for node in graph.nodes) > 3
    assert not [node.format_node() for node in graph.nodes if WRONG[wrong](node)]
