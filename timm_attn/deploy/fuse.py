"""A net for inference: the same outputs with fewer passes over memory.

The net becomes a graph of its layers (torch.fx). Norms are folded into the convolutions before them, additions go into
maps that nothing else reads, and on a CPU the convolutions hand out maps in channels_last.
"""

import copy
import operator
from collections import Counter
from typing import Any

import torch
from timm.layers import DropBlock2d, DropPath
from timm.models import get_notrace_functions, get_notrace_modules
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from timm_attn.attach.blocks import CONVS, NORMS, has_global_hooks, has_hooks, is_hooked
from timm_attn.attention import AttentionLayer
from timm_attn.deploy.check import check_same, expected_outputs, random_images
from timm_attn.deploy.fused_net import FusedNet, add_to

# Exact types: a subclass may compute something else.
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, DropBlock2d, DropPath)  # in evaluation
_LARGE = 1 << 21  # weights of a convolution, from which torch is slower in channels_last


@torch.inference_mode(False)  # inference tensors cannot be changed later
def fuse(model: nn.Module) -> nn.Module:
    """A copy of a net for inference with the same outputs: folded norms and fast layouts.

    Takes any net that torch.fx can follow, with or without attention, in its dtype and on its device. The copy can be
    exported, scripted and compiled, but not trained. Layers with hooks stay as they are, and so do norms and
    convolutions of other classes. As in timm's own nets, layers may overwrite the maps of earlier ones.

    Raises:
        ValueError: torch.fx cannot follow the net, it cannot be copied, it has hooks or a forward of its own, or the
            copy computes something else on random images, or the net itself does when it is called again.
    """
    name, net = type(model).__name__, _copied(model)
    images = None if has_hooks(net) else random_images(net)  # hooks may count
    expected = None if images is None else expected_outputs(net, images, name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(1)  # not the check's: a random number that became a constant shows
            graph = _Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(net)
    except (fx.proxy.TraceError, TypeError, RuntimeError, NameError) as error:
        raise ValueError(f'{name} cannot be fused, torch.fx cannot follow it: {error}') from error
    if not any(node.all_input_nodes for node in graph.nodes if node.op == 'output'):
        raise ValueError(f'{name} cannot be fused: its outputs come from hooks, not from its layers.')
    fused = FusedNet(_Rewriter(fx.GraphModule(net, graph, name)).rewritten(), model)
    if images is not None and expected is not None:
        check_same(fused, images, expected, name)
    return fused


def _copied(model: nn.Module) -> Any:
    """A copy in evaluation, of a net that fuse takes."""
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, '_orig_mod'):
        raise ValueError(f'{name}: a scripted or compiled net cannot be fused; fuse the net itself.')
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(f'{name} cannot be fused: a part of it is scripted.')
    if is_hooked(model) or has_global_hooks() or type(model).__call__ is not nn.Module.__call__:
        raise ValueError(
            f'{name} cannot be fused: the net itself or all modules have forward hooks, or it has a forward set on it, '
            'which a fused net would lose; remove them before, and set them on the fused net.'
        )
    try:
        net: Any = copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise ValueError(f'{name} cannot be fused, torch cannot copy it: {error}') from error
    training = [path for path, module in net.named_modules() if module.training]
    if training:
        raise ValueError(f'{name} cannot be fused: eval() leaves {training[0]!r} in training mode.')
    if getattr(net, 'grad_checkpointing', False):
        net.set_grad_checkpointing(False)
    return net


class _Tracer(fx.Tracer):
    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The graph has one input, the images; other arguments of forward have their defaults."""
        return super().create_args_for_root(lambda net, x: root_fn(net, x), is_module, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = (AttentionLayer, _BatchNorm, *get_notrace_modules())
        return isinstance(m, whole) or is_hooked(m) or super().is_leaf_module(m, module_qualified_name)


class _Rewriter:
    """Rewrites the graph of a net node by node; a layer that is used twice stays as it is."""

    def __init__(self, net: fx.GraphModule) -> None:
        self.net = net
        self.uses: Counter[nn.Module] = Counter()  # calls, also of a layer around it, and reads of its tensors
        for node in net.graph.nodes:
            if node.op == 'call_module':
                self.uses.update(net.get_submodule(node.target).modules())
            elif node.op == 'get_attr':
                self.uses[net.get_submodule(node.target.rpartition('.')[0])] += 1

    def rewritten(self) -> fx.GraphModule:
        for rewrite in (self.drop_idle, self.fold_norm, self.add_in_place, self.choose_layout, self.allow_layouts):
            for node in list(self.net.graph.nodes):
                rewrite(node)
        self.net.delete_all_unused_submodules()
        self.net.recompile()
        return self.net

    def drop_idle(self, node: fx.Node) -> None:
        if type(self.layer(node)) in _IDLE:
            self.replace(node, node.args[0])

    def fold_norm(self, node: fx.Node) -> None:
        """convolution, norm (, activation) -> convolution (, activation)."""
        norm, source = self.layer(node), self.only_used_here(node.args[0] if node.args else None)
        conv = self.layer(source)
        if type(norm) not in NORMS or norm.running_var is None or type(conv) not in CONVS:
            return
        act, drop = (getattr(norm, name, None) if NORMS[type(norm)] else None for name in ('act', 'drop'))
        if drop is not None and type(drop) not in _IDLE:
            return
        device = 'cpu' if conv.weight.device.type == 'mps' else conv.weight.device  # mps has no float64
        exact = (copy.deepcopy(layer).to(device, torch.float64) for layer in (conv, norm))
        self.net.set_submodule(str(source.target), fuse_conv_bn_eval(*exact).to(conv.weight))
        if act is None or type(act) in _IDLE:
            self.replace(node, source)
        else:
            self.net.set_submodule(str(node.target), act)

    def add_in_place(self, node: fx.Node) -> None:
        """x + y -> add_to(x, y) where x is a new map that nothing else reads."""
        if node.target not in (operator.add, torch.add) or len(node.args) != 2 or node.kwargs:
            return
        for x, other in (node.args, node.args[::-1]):
            layer = self.layer(self.only_used_here(x))
            is_new = type(layer) in (*CONVS, *NORMS) or isinstance(layer, AttentionLayer)
            if is_new and isinstance(other, fx.Node) and (other.op == 'call_module' or other.target is add_to):
                node.target, node.args = add_to, (x, other)
                return

    def choose_layout(self, node: fx.Node) -> None:
        """channels_last where the CPU is fast in it; a convolution hands the layout of its weight on to its map."""
        conv = self.layer(node)
        if type(conv) not in CONVS or conv.weight.device.type != 'cpu':
            return
        if conv.weight.numel() < _LARGE:
            conv.to(memory_format=torch.channels_last)
            return
        with self.net.graph.inserting_before(node):
            node.update_arg(0, self.net.graph.call_method('contiguous', (node.args[0],)))

    def allow_layouts(self, node: fx.Node) -> None:
        """view -> reshape, as maps may now be channels_last."""
        if node.op == 'call_method' and node.target == 'view':
            sizes = (*node.args[1:], *node.kwargs.values())
            if not isinstance(sizes[0], torch.dtype):
                node.target, node.args, node.kwargs = 'reshape', (node.args[0], *sizes), {}

    def layer(self, node: Any) -> Any:
        """The layer that a node calls, if it has no hooks and no other node uses it."""
        if not isinstance(node, fx.Node) or node.op != 'call_module' or not node.args:
            return None
        layer = self.net.get_submodule(str(node.target))
        return None if has_hooks(layer) or self.uses[layer] > 1 else layer

    def only_used_here(self, node: Any) -> Any:
        return node if isinstance(node, fx.Node) and len(node.users) == 1 else None

    def replace(self, node: fx.Node, by: Any) -> None:
        node.replace_all_uses_with(by)
        self.net.graph.erase_node(node)
