"""SimAM's start, which is approximate: its gate depends on the data, so that no constant undoes it exactly.

A norm behind SimAM gets the statistics of the gated map. Where none follows, the convolution in front is scaled.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_attn.attention import SimAM, attention_layers

_TYPICAL = 0.7  # of the gate, where nothing else is known
_BETWEEN = 0.1  # of a channel's variance is between images, the rest within them
_LEAST = 1e-12  # variance


@dataclass(frozen=True)
class Place:
    """The convolution that gives SimAM its map and the norm that takes it, by their paths; None where there is none."""

    conv: str | None
    norm: str | None

    @property
    def factor(self) -> float:
        """What the weights around the layer must undo; a norm behind it is told of the rest."""
        return _TYPICAL if self.norm is None else 1.0


@torch.no_grad()
def simam_places(model: nn.Module, example: Tensor) -> dict[str, Place]:
    """The places of the SimAM layers that run, by their paths."""
    made_by: dict[int, tuple[str, Tensor]] = {}  # by the id of a map; the map, so that ids stay unique
    conv_of: dict[str, str | None] = {}
    norm_of: dict[str, str] = {}

    def hooks(path: str, module: nn.Module) -> list[Any]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            origin, _ = made_by.get(id(args[0]), (None, None))
            if isinstance(module, SimAM):
                conv_of[path] = origin if origin is not None and origin not in conv_of else None
            elif isinstance(module, _BatchNorm) and origin in conv_of and module.running_var is not None:
                norm_of[origin] = path

        def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            made_by[id(out)] = (path, out)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    seen = (SimAM, nn.Conv2d, _BatchNorm)
    handles = [h for path, module in model.named_modules() if isinstance(module, seen) for h in hooks(path, module)]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    return {path: Place(conv, norm_of.get(path)) for path, conv in conv_of.items()}


@torch.no_grad()
def expect(model: nn.Module, places: dict[str, Place]) -> None:
    """Gives the norms behind SimAM the statistics of gated maps that were normal, without any image."""
    for path, place in places.items():
        if place.norm is not None:
            norm: Any = model.get_submodule(place.norm)
            _expect(norm, float(getattr(model.get_submodule(path), 'e_lambda')))  # noqa: B009


def _expect(norm: Any, e_lambda: float) -> None:
    """The mean and variance of g(z) x for x = mu + sigma_between y + sigma_within z, with y and z normal.

    g(z) = sigmoid(z^2 / (4 (1 + lambda / sigma_within^2)) + 1/2) is the gate of a position that deviates by z.
    """
    mean, variance = norm.running_mean, norm.running_var.clamp(min=_LEAST)
    between, within = _BETWEEN * variance, (1 - _BETWEEN) * variance
    nodes, weights = (torch.from_numpy(a).to(mean) for a in np.polynomial.hermite_e.hermegauss(64))
    weights = weights / math.sqrt(2 * math.pi)
    gate = torch.sigmoid(nodes**2 / (4 * (1 + e_lambda / within[:, None])) + 0.5)  # (C, nodes)
    g1, g2, h2 = gate @ weights, gate**2 @ weights, (nodes * gate) ** 2 @ weights
    gated = (mean**2 + between) * g2 + within * h2 - (mean * g1) ** 2
    norm.running_var.copy_((variance + norm.eps) * gated / variance - norm.eps)
    mean.mul_(g1)


@torch.no_grad()
def match(plain: nn.Module, model: nn.Module, places: dict[str, Place], images: Tensor) -> float:
    """Makes the batch norms, and the convolutions before SimAM that no norm follows, give what the plain net's give.

    Per channel, they get the mean and variance of the plain net's maps. All images go through in one pass, so that
    every layer is matched behind layers that are matched already.

    Args:
        plain: the same modules, SimAM passing its map on.
        images: (N, C, H, W).

    Returns:
        The root mean square of the difference of the outputs, relative to the plain net's.
    """
    wanted: dict[str, tuple[Tensor, Tensor]] = {}  # mean and variance per channel
    norms = _norms(model)
    convs = {path: place.conv for path, place in places.items() if place.norm is None and place.conv is not None}

    def note(path: str) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            wanted[path] = _moments(args[0])

        return plain.get_submodule(path).register_forward_pre_hook(before)

    def match_norm(path: str, norm: Any) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            (mean, variance), (new_mean, new_variance) = wanted[path], _moments(args[0])
            ratio = (new_variance.clamp(min=_LEAST) / variance.clamp(min=_LEAST)).sqrt()
            norm.running_mean.copy_(new_mean - (mean - norm.running_mean) * ratio)
            norm.running_var.copy_(((norm.running_var + norm.eps) * ratio**2 - norm.eps).clamp(min=0))

        return norm.register_forward_pre_hook(before)

    def match_conv(path: str, conv: Any) -> Any:
        layer = model.get_submodule(path)

        def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            slope = (wanted[path][1].clamp(min=_LEAST) / _moments(out)[1].clamp(min=_LEAST)).sqrt()
            conv.weight.mul_(slope[:, None, None, None])
            if conv.bias is not None:
                conv.bias.mul_(slope)
            return layer.forward(args[0] * slope[:, None, None])

        return layer.register_forward_hook(after)

    handles = [note(path) for path in (*norms, *convs)]
    handles += [match_norm(path, norm) for path, norm in norms.items()]
    handles += [match_conv(path, model.get_submodule(conv)) for path, conv in convs.items()]
    try:
        expected, found = plain(images), model(images)
    finally:
        for handle in handles:
            handle.remove()
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms with running statistics, outside of attention layers, by their paths."""
    inside = tuple(f'{path}.' for path in attention_layers(model))
    norms = {path: m for path, m in model.named_modules() if isinstance(m, _BatchNorm) and not path.startswith(inside)}
    return {path: norm for path, norm in norms.items() if norm.running_var is not None}


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and variance of every channel of (N, C, H, W)."""
    return x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
