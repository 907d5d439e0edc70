"""The papers' conventions of counting parameters and operations, for one image."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn.analysis.hooks import hooked, observed
from timm_attn.attention import ECA, SE

Size = tuple[int, int, int]  # channels, height, width
Rule = Callable[[Any, Tensor, Tensor], int]  # (module, its input, its output) -> operations
Rules = Mapping[type[nn.Module], Rule]


def params(model: nn.Module) -> int:
    """Trainable parameters; buffers are none."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def thop_params(model: nn.Module) -> int:
    """SimAM Table 3 in its SRM rows: parameters of convolutions, linear layers and batch norms.

    thop visits layers without children, so it misses a parameter that a larger module holds itself, such as SRM's.
    """
    return sum(params(m) for m in model.modules() if isinstance(m, (*_WEIGHTED, nn.BatchNorm2d)))


def macs(model: nn.Module, input_size: Size) -> int:
    """BAM: multiply-accumulates of convolutions and linear layers only."""
    return _count(model, input_size, _MACS)


def thop_2020(model: nn.Module, input_size: Size) -> int:
    """SimAM Table 3 (thop 0.0.31.post2005241907): macs, 2 per batch norm input, k + 1 per average pool output."""
    return _count(model, input_size, _THOP_2020)


def thop_2019(model: nn.Module, input_size: Size) -> int:
    """ECA Table A (thop 0.0.31.post1910280903): a bias is 1, a linear output 2 * inputs - 1, a batch norm's input 4."""
    return _count(model, input_size, _THOP_2019)


def _multiply(module: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * module.weight[0].numel()


def _convolve_2019(module: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * (module.weight[0].numel() + (module.bias is not None))


def _multiply_2019(module: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * (2 * module.in_features - 1 + (module.bias is not None))


def _pool(module: Any, x: Tensor, y: Tensor) -> int:
    """k additions and one division per output, for windows of k values."""
    return y.numel() * (x.shape[2] // y.shape[2] * (x.shape[3] // y.shape[3]) + 1)


def _pool_all(module: Any, x: Tensor, y: Tensor) -> int:
    """The nn.AdaptiveAvgPool2d(1) at the head of the authors' layer, where ours has x.mean, which thop does not see."""
    return x.shape[1] * (x.shape[2] * x.shape[3] + 1)


def _per_input(operations: int) -> Rule:
    return lambda module, x, y: operations * x.numel()


_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
# SE's and ECA's authors pool by a module, CBAM's and SRM's by functions. So does the MobileNetV2 of SimAM's authors at
# its head, where timm's has a module: 64,000 more than thop's integer (1280 * 50), which changes no printed figure.
_POOLS: Rules = {nn.AdaptiveAvgPool2d: _pool, SE: _pool_all, ECA: _pool_all}
_MACS: Rules = {layer: _multiply for layer in _WEIGHTED}
_THOP_2020: Rules = {**_MACS, nn.BatchNorm2d: _per_input(2), **_POOLS}
_THOP_2019: Rules = {
    nn.Conv1d: _convolve_2019,
    nn.Conv2d: _convolve_2019,
    nn.Linear: _multiply_2019,
    nn.BatchNorm2d: _per_input(4),
    **_POOLS,
}


def _count(model: nn.Module, input_size: Size, rules: Rules) -> int:
    """The rules' sum over one forward pass in evaluation mode; on a meta device nothing is computed."""
    total = 0

    def add(path: str, module: Any, x: Tensor, y: Tensor) -> None:
        nonlocal total
        total += sum(rule(module, x, y) for layer, rule in rules.items() if isinstance(module, layer))

    counted = {path: m for path, m in model.named_modules() if any(isinstance(m, layer) for layer in rules)}
    with observed(model), hooked(counted, after=add), torch.no_grad():
        model(torch.empty(1, *input_size, device=next(model.parameters()).device))
    return total
