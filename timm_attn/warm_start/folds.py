"""Folds the constant factors of attention layers into a net's weights, so that it computes what it did without them."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from timm_attn.attention import attention_layers
from timm_attn.warm_start.operations import RULES
from timm_attn.warm_start.scales import CannotFold
from timm_attn.warm_start.walk import Start, Use, Walk, tensors_in


@dataclass(frozen=True)
class Fold:
    """What was scaled.

    Args:
        path: the module whose weights changed.
        inputs: the scales of its input relative to the plain net's, one for each span of channels.
        output: the scale of its output.
        kind: see Use.
    """

    path: str
    inputs: tuple[Fraction, ...]
    output: Fraction
    kind: str

    @property
    def words(self) -> str:
        """The scales, for people."""
        return f'input scaled by {" and ".join(map(str, self.inputs))}, output by {self.output}'

    @property
    def rescales_a_norm(self) -> bool:
        """Whether it holds up to a norm's eps alone: a batch norm's in training, another's also in evaluation."""
        return self.kind == 'normalised' and any(scale != 1 for scale in self.inputs)


@torch.no_grad()
def fold(model: nn.Module, start: Start, example: Tensor) -> list[Fold]:
    """Puts the attention layers at their constant factors and rescales weights in place; returns what was scaled.

    Args:
        model: a net in evaluation.
        start: puts a layer at its constant factor; called in the order of the forward pass.
        example: an input.

    Raises:
        CannotFold: no scales of the weights undo the factors. The layers have started then, and no weight is scaled.
    """
    walk = Walk(model, RULES, start, example)
    try:
        with walk:
            out = model(example)
        walk.path = 'the output'
        walk.pin(*tensors_in(out))
    finally:
        walk.remove()
    idle = [path for path in attention_layers(model) if path not in walk.reached]
    if idle:
        raise CannotFold(f'{idle[0]} does not run')
    scales, folds = walk.scales.solve(), []
    for use in walk.uses():
        inputs, output = [scales[number] for _, number in use.inputs], scales[use.output]
        if output != 1 or any(scale != 1 for scale in inputs):
            _rescale(use, inputs, float(output))
            folds.append(Fold(use.path, tuple(dict.fromkeys(inputs)), output, use.kind))
    return folds


def _rescale(use: Use, inputs: list[Fraction], output: float) -> None:
    """Gives the output its scale and takes the scales of the input channels away."""
    weight = use.weight
    if use.kind in ('mixed', 'multiplied'):
        weight.mul_(output / _per_input(use, inputs))
    else:
        weight.mul_(output)
    if use.bias is not None:
        use.bias.mul_(output)
    if use.statistics is not None:
        mean, variance = use.statistics
        scale = _along_channels(use, inputs)
        mean.mul_(scale)
        variance.add_(use.eps).mul_(scale**2).sub_(use.eps)


def _per_input(use: Use, inputs: list[Fraction]) -> Tensor:
    """The input scales in the shape of a weight (out, in / groups, ...)."""
    scales, weight = _along_channels(use, inputs), use.weight
    if scales.ndim == 0:
        return scales
    by_group = scales.view(use.groups, 1, -1).expand(-1, weight.shape[0] // use.groups, -1)
    return by_group.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.ndim - 2))


def _along_channels(use: Use, inputs: list[Fraction]) -> Tensor:
    """The scale of every input channel, (C,), or one for all, ()."""
    spans = zip(use.inputs, inputs, strict=True)
    scales = [torch.full((channels,), float(scale), dtype=torch.float64) for (channels, _), scale in spans]
    found = torch.cat(scales) if len(inputs) > 1 else torch.tensor(float(inputs[0]), dtype=torch.float64)
    return found.to(use.weight)


__all__ = ['CannotFold', 'Fold', 'fold']
