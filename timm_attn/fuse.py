"""A net for inference: the same outputs, in fewer passes over its maps.

The net becomes a graph of its layers (torch.fx). Norms go into the convolutions before them; attention, a norm behind
SimAM, the shortcut's addition and the activation become one layer; convolutions and max-pools get fast layouts.
"""

import copy
import operator
from collections import Counter
from typing import Any

import torch
from timm.layers import Conv2dSame, DropBlock2d, DropPath
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_attn import ops
from timm_attn.attention import AttentionLayer, SimAM
from timm_attn.blocks import CEILINGS, has_hooks
from timm_attn.fused_layers import ChannelsLastMaxPool, FusedAttention, FusedSimAM, PackedConv2d

_IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, DropBlock2d, DropPath)  # in evaluation
_CONVS = (nn.Conv2d, Conv2dSame)  # other subclasses may do something to their weights
_MAPS = (operator.add, torch.add, torch.cat, ops.last_pass)  # functions that give a map of their own


class FusedNet(nn.Module):
    """What fuse returns: a graph of layers, and what timm's data tools want to know of the net it was made of."""

    def __init__(self, layers: fx.GraphModule, model: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        for name in ('num_classes', 'pretrained_cfg'):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> 'FusedNet':
        if mode:
            raise RuntimeError('A fused net is for inference, its norms are gone: train the net that it was made of.')
        return super().train(False)

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


@torch.inference_mode(False)  # weights made in it would not say when they change
def fuse(model: nn.Module) -> nn.Module:
    """A copy of a net for inference with the same outputs: norms inside convolutions, a block's end in one pass.

    Takes any net that torch.fx can follow, with or without attention, in its dtype and on its device. The copy can be
    exported, scripted and compiled, but not trained. Layers with hooks stay as they are.

    Raises:
        ValueError: torch.fx cannot follow the net, or it cannot be copied.
    """
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, '_orig_mod'):
        raise ValueError(f'{type(model).__name__}: a scripted or compiled net cannot be fused; fuse the net itself.')
    try:
        net: Any = copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise ValueError(f'{type(model).__name__} cannot be fused, torch cannot copy it: {error}') from error
    if getattr(net, 'grad_checkpointing', False):
        net.set_grad_checkpointing(False)
    try:
        graph = _Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(net)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ValueError(f'{type(model).__name__} cannot be fused, torch.fx cannot follow it: {error}') from error
    return FusedNet(_Rewriter(fx.GraphModule(net, graph, type(model).__name__)).rewritten(), model)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        fused = (FusedAttention, FusedSimAM, ChannelsLastMaxPool, PackedConv2d)
        ours = (AttentionLayer, _BatchNorm, *fused, *get_notrace_modules())
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


class _Rewriter:
    """Rewrites the graph of a net node by node; what is called twice stays as it is."""

    def __init__(self, net: fx.GraphModule) -> None:
        self.net = net
        self.calls = Counter(node.target for node in net.graph.nodes if node.op == 'call_module')

    def rewritten(self) -> fx.GraphModule:
        rewrites = (self.drop_idle, self.fold_norm, self.join_attention, self.join_addition)
        for rewrite in (*rewrites, self.choose_layout, self.allow_layouts):
            for node in list(self.net.graph.nodes):
                rewrite(node)
        self.net.delete_all_unused_submodules()
        self.net.recompile()
        return self.net

    def drop_idle(self, node: fx.Node) -> None:
        if isinstance(self.layer(node), _IDLE):
            self.replace(node, node.args[0])

    def fold_norm(self, node: fx.Node) -> None:
        """convolution, norm -> convolution; SimAM, norm -> FusedSimAM."""
        norm = self.layer(node)
        if not isinstance(norm, _BatchNorm) or norm.running_var is None or not self.is_ours(node.args[0]):
            return
        source: Any = node.args[0]
        layer, (factor, shift) = self.layer(source), _affine(norm)
        if type(layer) in _CONVS:
            _fold(layer, factor, shift)
        elif type(layer) is SimAM and self.is_ours(source.args[0]):
            dtype = norm.running_var.dtype
            self.put(source, FusedSimAM(layer.e_lambda, factor.to(dtype), shift.to(dtype)))
        else:
            return
        act = getattr(norm, 'act', nn.Identity())  # timm's norms may have one
        if isinstance(act, _IDLE):
            self.replace(node, source)
        else:
            self.put(node, act)

    def join_attention(self, node: fx.Node) -> None:
        """attention (, addition) (, activation) -> one layer."""
        layer = self.layer(node)
        if isinstance(layer, AttentionLayer) and self.is_ours(node.args[0]):
            layer = self.put(node, FusedAttention(layer))
        if not isinstance(layer, FusedAttention | FusedSimAM) or layer.ceiling is not None or len(node.args) > 1:
            return  # none, or one that already ends its block
        addition = self.only_user(node)
        other = self.other_term(addition, node)
        if addition is not None and other is not None:
            with self.net.graph.inserting_before(addition):
                joined = self.net.graph.call_module(str(node.target), (node.args[0], other))
            self.replace(addition, joined)
            self.net.graph.erase_node(node)
            node = joined
        layer.ceiling = self.absorbed_ceiling(node)

    def join_addition(self, node: fx.Node) -> None:
        """addition (, activation) -> last_pass."""
        for x in node.args[:2]:
            other = self.other_term(node, x)
            if other is not None and self.is_ours(x):
                with self.net.graph.inserting_before(node):
                    joined = self.net.graph.call_function(ops.last_pass, (x, None, [other], None))
                self.replace(node, joined)
                joined.update_arg(3, self.absorbed_ceiling(joined))
                return

    def choose_layout(self, node: fx.Node) -> None:
        """Convolutions and max-pools in the layouts that the CPU is fast in."""
        layer = self.layer(node)
        if type(layer) is nn.Conv2d and layer.padding_mode == 'zeros' and not isinstance(layer.padding, str):
            self.put(node, PackedConv2d(layer))
        elif type(layer) is nn.MaxPool2d and not layer.return_indices:
            self.put(node, ChannelsLastMaxPool(layer))

    def allow_layouts(self, node: fx.Node) -> None:
        """What a net views, such as a map as rows, may now be channels_last."""
        if node.op == 'call_method' and node.target == 'view' and not isinstance(node.args[1], torch.dtype):
            node.target = 'reshape'

    def layer(self, node: Any) -> Any:
        """The layer without hooks that a node calls, if no other node calls it too, or that does not matter."""
        if not isinstance(node, fx.Node) or node.op != 'call_module':
            return None
        layer = self.net.get_submodule(str(node.target))
        alone = self.calls[node.target] == 1 or type(layer) in CEILINGS
        return layer if alone and not has_hooks(layer) else None

    def put(self, node: fx.Node, layer: Any) -> Any:
        self.net.set_submodule(str(node.target), layer)
        return layer

    def replace(self, node: fx.Node, by: Any) -> None:
        node.replace_all_uses_with(by)
        self.net.graph.erase_node(node)

    def only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def is_ours(self, node: Any) -> bool:
        """Whether nothing but its one user sees the map of a node, which is no view of another."""
        if not isinstance(node, fx.Node) or self.only_user(node) is None:
            return False
        if getattr(self.layer(node), 'inplace', False):  # it gives its input
            return self.is_ours(node.args[0])
        makers = (*_CONVS, *CEILINGS, nn.MaxPool2d, nn.AvgPool2d, SimAM, FusedAttention, FusedSimAM, PackedConv2d)
        return node.target in _MAPS or type(self.layer(node)) in makers

    def other_term(self, addition: fx.Node | None, term: Any) -> fx.Node | None:
        """What an addition of two maps adds to one of them."""
        if addition is None or addition.target not in (operator.add, torch.add) or len(addition.args) != 2:
            return None
        others = [arg for arg in addition.args if arg is not term]
        if len(others) != 1 or addition.kwargs or not isinstance(others[0], fx.Node):
            return None
        is_map = others[0].op in ('call_module', 'placeholder') or others[0].target in _MAPS
        return others[0] if is_map else None

    def absorbed_ceiling(self, node: fx.Node) -> float | None:
        """The ceiling of the activation behind a node, which is removed; None without one."""
        activation = self.only_user(node)
        ceiling = CEILINGS.get(type(self.layer(activation)))
        if activation is not None and ceiling is not None:
            self.replace(activation, node)
        return ceiling


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """The factor and the term of a norm in evaluation, a channel, in float64 where the device has it."""
    exact = torch.float32 if norm.running_var.device.type == 'mps' else torch.float64
    factor = (norm.running_var.to(exact) + norm.eps).rsqrt()
    if norm.affine:
        factor = factor * norm.weight.detach()
    shift = -norm.running_mean * factor
    return factor, shift + norm.bias.detach() if norm.affine else shift


def _fold(conv: Any, factor: Tensor, shift: Tensor) -> None:
    """Makes a convolution's output `factor` times as large, plus shift."""
    weight = conv.weight.detach()
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
    conv.weight = nn.Parameter((weight * factor[:, None, None, None]).to(weight.dtype))
    conv.bias = nn.Parameter((bias * factor + shift).to(weight.dtype))
