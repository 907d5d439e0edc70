"""A net for inference: the same outputs with fewer passes over memory.

The net becomes a graph of its layers (torch.fx). Norms are folded into the convolutions before them; attention, a norm
behind SimAM, the shortcut's addition and the activation become one layer; convolutions and max-pools get fast layouts.
"""

import copy
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropBlock2d, DropPath
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_attn import ops
from timm_attn.attach.blocks import CEILINGS, CONVS, NORMS, has_global_hooks, has_hooks, is_hooked, makes_its_map
from timm_attn.attention import AttentionLayer, SimAM
from timm_attn.fuse_check import check_same, expected_outputs, random_images
from timm_attn.fused_layers import (
    ChannelsLastMaxPool,
    FusedAddition,
    FusedAttention,
    FusedNet,
    FusedSimAM,
    PackedConv2d,
)

# Exact types: a subclass may compute something else.
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, DropBlock2d, DropPath)  # in evaluation
# Activations that can be in place: the function and its options
_ACTIVATIONS: Mapping[type[nn.Module], tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    nn.CELU: (F.celu, ('alpha',)),
    nn.ELU: (F.elu, ('alpha',)),
    nn.Hardsigmoid: (F.hardsigmoid, ()),
    nn.Hardswish: (F.hardswish, ()),
    nn.Hardtanh: (F.hardtanh, ('min_val', 'max_val')),
    nn.LeakyReLU: (F.leaky_relu, ('negative_slope',)),
    nn.Mish: (F.mish, ()),
    nn.ReLU: (F.relu, ()),
    nn.ReLU6: (F.relu6, ()),
    nn.SELU: (F.selu, ()),
    nn.SiLU: (F.silu, ()),
}
_ENDS = (FusedAttention, FusedSimAM, FusedAddition)  # they may overwrite their input
_OURS = (*_ENDS, ChannelsLastMaxPool, PackedConv2d)
_ADDITIONS = (operator.add, torch.add)


@torch.inference_mode(False)  # inference tensors have no version counter
def fuse(model: nn.Module) -> nn.Module:
    """A copy of a net for inference with the same outputs: folded norms and fused epilogues.

    Takes any net that torch.fx can follow, with or without attention, in its dtype and on its device. The copy can be
    exported, scripted and compiled, but not trained. Layers with hooks stay as they are, and so do norms and
    convolutions of other classes.

    Raises:
        ValueError: torch.fx cannot follow the net, it cannot be copied, it has hooks or a forward of its own, or the
            copy computes something else on random images.
    """
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, '_orig_mod'):
        raise ValueError(f'{type(model).__name__}: a scripted or compiled net cannot be fused; fuse the net itself.')
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(f'{type(model).__name__} cannot be fused: a part of it is scripted.')
    if is_hooked(model) or has_global_hooks() or type(model).__call__ is not nn.Module.__call__:
        raise ValueError(
            f'{type(model).__name__} cannot be fused: the net itself or all modules have forward hooks, or it has a '
            'forward set on it, which a fused net would lose; remove them before, and set them on the fused net.'
        )
    try:
        net: Any = copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise ValueError(f'{type(model).__name__} cannot be fused, torch cannot copy it: {error}') from error
    training = [name for name, module in net.named_modules() if module.training]
    if training:
        raise ValueError(f'{type(model).__name__} cannot be fused: eval() leaves {training[0]!r} in training mode.')
    if getattr(net, 'grad_checkpointing', False):
        net.set_grad_checkpointing(False)
    images = None if has_hooks(net) else random_images(net)  # hooks may count
    expected = None if images is None else expected_outputs(net, images)
    try:
        tracer = _Tracer(autowrap_functions=tuple(get_notrace_functions()))
        tracer.of_images = True
        graph = tracer.trace(net)
    except (fx.proxy.TraceError, TypeError, RuntimeError, NameError) as error:
        raise ValueError(f'{type(model).__name__} cannot be fused, torch.fx cannot follow it: {error}') from error
    if not any(node.all_input_nodes for node in graph.nodes if node.op == 'output'):
        raise ValueError(f'{type(model).__name__} cannot be fused: its outputs come from hooks, not from its layers.')
    fused = FusedNet(_Rewriter(fx.GraphModule(net, graph, type(model).__name__)).rewritten(), model)
    if images is not None and expected is not None:
        check_same(fused, images, expected, type(model).__name__)
    return fused


class _Tracer(fx.Tracer):
    of_images = False  # of a fused graph, which a pickle traces again, all inputs are kept

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Of a net, the graph has one input, the images; other arguments of forward have their defaults."""
        traced = (lambda net, x: root_fn(net, x)) if self.of_images else root_fn
        return super().create_args_for_root(traced, is_module, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = (AttentionLayer, _BatchNorm, *_OURS, *get_notrace_modules())
        return isinstance(m, whole) or is_hooked(m) or super().is_leaf_module(m, module_qualified_name)


class _Rewriter:
    """Rewrites the graph of a net node by node; a layer that is called twice stays as it is."""

    def __init__(self, net: fx.GraphModule) -> None:
        self.net = net
        self.calls = Counter(node.target for node in net.graph.nodes if node.op == 'call_module')

    def rewritten(self) -> fx.GraphModule:
        rewrites = (self.drop_idle, self.fold_norm, self.join_attention, self.join_addition)
        for rewrite in (*rewrites, self.choose_layout, self.allow_layouts):
            for node in list(self.net.graph.nodes):
                rewrite(node)
        self.allow_overwriting()
        self.net.delete_all_unused_submodules()
        self.net.recompile()
        return self.net

    def drop_idle(self, node: fx.Node) -> None:
        if type(self.layer(node)) in _IDLE:
            self.replace(node, node.args[0])

    def fold_norm(self, node: fx.Node) -> None:
        """convolution, norm -> convolution; SimAM, norm -> FusedSimAM."""
        norm = self.layer(node)
        if type(norm) not in NORMS or norm.running_var is None or not self.owns_buffer(node.args[0]):
            return
        act = getattr(norm, 'act', nn.Identity()) if NORMS[type(norm)] else nn.Identity()
        drop = getattr(norm, 'drop', nn.Identity()) if NORMS[type(norm)] else nn.Identity()
        if type(drop) not in _IDLE:
            return
        source: Any = node.args[0]
        layer, (factor, shift) = self.layer(source), _affine(norm)
        if type(layer) in CONVS:
            _fold(layer, factor, shift)
        elif type(layer) is SimAM and self.owns_buffer(source.args[0]):
            dtype = norm.running_var.dtype
            self.put(source, FusedSimAM(layer.e_lambda, factor.to(dtype), shift.to(dtype)))
        else:
            return
        if type(act) in _IDLE:
            self.replace(node, source)
        else:
            self.put(node, act)

    def join_attention(self, node: fx.Node) -> None:
        """attention (, addition) (, activation) -> one layer."""
        layer = self.layer(node)
        if isinstance(layer, AttentionLayer) and self.owns_buffer(node.args[0]):
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
        """addition (, activation) -> FusedAddition."""
        for x in node.args[:2]:
            other = self.other_term(node, x)
            if other is not None and self.owns_buffer(x):
                node.op, node.args, layer = 'call_module', (x, other), FusedAddition()
                node.target = self.add(node.name, layer)
                layer.ceiling = self.absorbed_ceiling(node)
                return

    def choose_layout(self, node: fx.Node) -> None:
        """Convolutions and max-pools in the layouts that the CPU is fast in."""
        layer = self.layer(node)
        if type(layer) in CONVS:
            self.check_input(node, layer.in_channels)
        if type(layer) is nn.Conv2d and layer.padding_mode == 'zeros' and not isinstance(layer.padding, str):
            self.put(node, PackedConv2d(layer))
        elif type(layer) is nn.MaxPool2d and not layer.return_indices:
            self.put(node, ChannelsLastMaxPool(layer))

    def allow_layouts(self, node: fx.Node) -> None:
        """view -> reshape, as maps may now be channels_last."""
        if node.op == 'call_method' and node.target == 'view':
            sizes = (*node.args[1:], *(node.kwargs[key] for key in node.kwargs if key == 'size'))
            if sizes and not isinstance(sizes[0], torch.dtype):
                node.target, node.args, node.kwargs = 'reshape', (node.args[0], *sizes), {}

    def check_input(self, node: fx.Node, channels: int) -> None:
        """Checks the net's input: a convolution also takes an image without a batch, the layers behind it do not."""
        x = node.args[0] if node.args else None
        if isinstance(x, fx.Node) and x.op == 'placeholder':
            with self.net.graph.inserting_before(node):
                checked = self.net.graph.call_function(ops.check_channels, (x, channels))
            node.update_arg(0, checked)

    def allow_overwriting(self) -> None:
        """Gives the graph an argument: whether its layers may overwrite maps that have no other user."""
        inputs = [node for node in self.net.graph.nodes if node.op == 'placeholder']
        with self.net.graph.inserting_after(inputs[-1]):
            overwrite = self.net.graph.placeholder('overwrite', bool, False)
        for node in [node for node in self.net.graph.nodes if node.args and self.owns_buffer(node.args[0])]:
            layer = self.layer(node)
            if type(layer) in _ACTIVATIONS and layer.inplace:
                function, options = _ACTIVATIONS[type(layer)]
                node.op, node.target = 'call_function', function
                node.kwargs = {**{option: getattr(layer, option) for option in options}, 'inplace': True}
            if type(layer) in _ENDS:
                node.update_kwarg('overwrite', overwrite)
            elif 'inplace' in node.kwargs and any(node.target is function for function, _ in _ACTIVATIONS.values()):
                node.update_kwarg('inplace', overwrite)

    def layer(self, node: Any) -> Any:
        """The layer that a node calls, if it has no hooks and, but for activations, no other node calls it."""
        if not isinstance(node, fx.Node) or node.op != 'call_module' or not node.args:
            return None
        layer = self.net.get_submodule(str(node.target))
        alone = self.calls[node.target] == 1 or type(layer) in _ACTIVATIONS
        return layer if alone and not has_hooks(layer) else None

    def put(self, node: fx.Node, layer: Any) -> Any:
        self.net.set_submodule(str(node.target), layer)
        return layer

    def add(self, name: str, layer: nn.Module) -> str:
        """Adds a layer to the net under a free name like the given one, which is returned."""
        while hasattr(self.net, name):
            name += '_'
        self.net.add_module(name, layer)
        self.calls[name] = 1
        return name

    def replace(self, node: fx.Node, by: Any) -> None:
        node.replace_all_uses_with(by)
        self.net.graph.erase_node(node)

    def only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def owns_buffer(self, node: Any) -> bool:
        """Whether a node's output is a new tensor with one user, which may overwrite it."""
        if not isinstance(node, fx.Node) or self.only_user(node) is None:
            return False
        layer = self.layer(node)
        if type(layer) in _ACTIVATIONS and layer.inplace:  # it returns its input
            return self.owns_buffer(node.args[0])
        makers = (*_ACTIVATIONS, *_OURS, nn.MaxPool2d, nn.AvgPool2d)
        return self.is_new_map(node) or type(layer) in makers or (layer is not None and makes_its_map(layer))

    def is_new_map(self, node: fx.Node) -> bool:
        """Whether a node calls a function that returns a new map; additions may also be of sizes."""
        return node.target is torch.cat or (node.target in _ADDITIONS and any(map(self.is_map, node.args)))

    def is_map(self, node: Any) -> bool:
        return isinstance(node, fx.Node) and (node.op in ('call_module', 'placeholder') or self.is_new_map(node))

    def other_term(self, addition: fx.Node | None, term: Any) -> fx.Node | None:
        """The other term of an addition of two maps, else None."""
        if addition is None or addition.target not in _ADDITIONS or len(addition.args) != 2 or addition.kwargs:
            return None
        others: Any = [arg for arg in addition.args if arg is not term]
        return others[0] if len(others) == 1 and self.is_map(others[0]) else None

    def absorbed_ceiling(self, node: fx.Node) -> float | None:
        """Removes the activation behind a node and returns its ceiling; None without one."""
        activation = self.only_user(node)
        ceiling = CEILINGS.get(type(self.layer(activation)))
        if activation is not None and ceiling is not None:
            self.replace(activation, node)
        return ceiling


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """The factor and the shift per channel of a norm in evaluation, in float64 where the device has it."""
    exact = torch.float32 if norm.running_var.device.type == 'mps' else torch.float64
    factor = (norm.running_var.to(exact) + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach()
    shift = -norm.running_mean * factor
    return factor, shift if norm.bias is None else shift + norm.bias.detach()


def _fold(conv: Any, factor: Tensor, shift: Tensor) -> None:
    """Changes a convolution so that its output is factor * output + shift."""
    weight = conv.weight.detach()
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
    conv.weight = nn.Parameter((weight * factor[:, None, None, None]).to(weight.dtype))
    conv.bias = nn.Parameter((bias * factor + shift).to(weight.dtype))
