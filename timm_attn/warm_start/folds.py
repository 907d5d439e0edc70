"""Folds the constant factors of attention layers into a net's weights, so that it computes what it did without them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from timm_attn.warm_start.operations import RULES
from timm_attn.warm_start.scales import CannotFold, Scale
from timm_attn.warm_start.walk import Start, Use, Walk, tensors_in

Value = Fraction | Tensor  # a scale of a whole map, or of each of its channels, (C,)


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
    inputs: tuple[Value, ...]
    output: Value
    kind: str

    @property
    def words(self) -> str:
        """The scales, for people."""
        return f'input scaled by {" and ".join(map(words, self.inputs))}, output by {words(self.output)}'

    @property
    def rescales_a_norm(self) -> bool:
        """Whether it holds up to a norm's eps alone: a batch norm's in training, another's also in evaluation."""
        return self.kind == 'normalised' and not all(_is_one(scale) for scale in self.inputs)


def words(scale: Value) -> str:
    """A scale, for people."""
    if isinstance(scale, Fraction):
        return str(scale)
    return f'{float(scale.min()):.3g} to {float(scale.max()):.3g} by channel'


@torch.no_grad()
def fold(
    model: nn.Module, start: Start, example: Tensor, layers: Collection[str], gates: Mapping[str, Tensor]
) -> list[Fold]:
    """Puts the attention layers at their constant factors and rescales weights in place; returns what was scaled.

    Args:
        model: a net in evaluation.
        start: puts a layer at its constant factor; called in the order of the forward pass.
        example: an input.
        layers: the paths of the attention layers; others are a part of the plain net.
        gates: by what the plain net multiplies a map, (C,), in the place of the layers of these paths; else by 1.

    Raises:
        CannotFold: no scales of the weights undo the factors. The layers have started then, and no weight is scaled.
    """
    walk = Walk(model, RULES, start, example, layers, gates)
    try:
        with walk:
            out = model(example)
        walk.path = 'the output'
        walk.pin(*tensors_in(out))
    finally:
        walk.remove()
    idle = [path for path in layers if path not in walk.reached]
    if idle:
        raise CannotFold(f'{idle[0]} does not run')
    scales = walk.scales.solve()
    folds, plans = [], []
    for use in walk.uses():
        numbers = [number for _, number in use.inputs]
        if any(scales[number] != 1 for number in (*numbers, use.output)):
            values = {number: _value(scales[number], gates) for number in (*numbers, use.output)}
            plans.append((use, _along_inputs(use, values), _along_outputs(use, values[use.output])))
            unlike = {scales[number]: values[number] for number in numbers}
            folds.append(Fold(use.path, tuple(unlike.values()), values[use.output], use.kind))
    for use, inputs, output in plans:
        _rescale(use, inputs, output)
    return folds


def _value(scale: Scale, gates: Mapping[str, Tensor]) -> Value:
    if isinstance(scale, Fraction):
        return scale
    powers = [gates[name].double() ** power for name, power in scale.powers]
    if len({len(power) for power in powers}) > 1:
        raise CannotFold(f'gates of other channels meet in one map, {scale}')
    return float(scale.number) * torch.stack(powers).prod(dim=0)


def _is_one(scale: Value) -> bool:
    return isinstance(scale, Fraction) and scale == 1


def _rescale(use: Use, inputs: Tensor, output: Tensor) -> None:
    """Gives the output its scale and takes the scales of the input channels away."""
    weight = use.weight
    if use.kind == 'mixed':
        weight.mul_(_before(output, weight.ndim - 1) / _per_input(use, inputs))
    else:
        by = output / inputs if use.kind == 'multiplied' else output
        weight.mul_(by.view_as(weight) if by.ndim else by)
    if use.bias is not None:
        use.bias.mul_(output)
    if use.statistics is not None:
        mean, variance = use.statistics
        mean.mul_(inputs)
        variance.add_(use.eps).mul_(inputs**2).sub_(use.eps)


def _before(scale: Tensor, dims: int) -> Tensor:
    """A scale per channel, in front of further dimensions."""
    return scale.view(-1, *[1] * dims) if scale.ndim else scale


def _per_input(use: Use, scales: Tensor) -> Tensor:
    """The input scales in the shape of a weight (out, in / groups, ...)."""
    weight = use.weight
    if scales.ndim == 0:
        return scales
    by_group = scales.view(use.groups, 1, -1).expand(-1, weight.shape[0] // use.groups, -1)
    return by_group.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.ndim - 2))


def _along_inputs(use: Use, values: Mapping[int, Value]) -> Tensor:
    """The scale of every input channel, (C,), or one for all, ()."""
    if not use.inputs:
        return torch.ones(())
    if len(use.inputs) > 1:
        scales = torch.cat([_per_channel(use, values[number], channels) for channels, number in use.inputs])
    else:
        mixed = use.kind == 'mixed'
        count = use.weight.shape[1] * use.groups if mixed and use.weight.ndim > 1 else use.weight.numel()
        scales = _one_or_per_channel(use, values[use.inputs[0][1]], count)
    if scales.ndim and use.kind == 'normalised' and use.statistics is None:
        raise CannotFold(f'{use.path} normalises over channels of other scales')
    return scales.to(use.weight)


def _along_outputs(use: Use, value: Value) -> Tensor:
    """The scale of every output channel, (C,), or one for all, ()."""
    count = use.weight.shape[0] if use.kind == 'mixed' else use.weight.numel()
    return _one_or_per_channel(use, value, count).to(use.weight)


def _one_or_per_channel(use: Use, value: Value, channels: int) -> Tensor:
    if isinstance(value, Fraction):
        return torch.tensor(float(value), dtype=torch.float64)
    return _per_channel(use, value, channels)


def _per_channel(use: Use, value: Value, channels: int) -> Tensor:
    """A scale of so many channels: where a map was flattened, several in a row are one of its channels."""
    if isinstance(value, Fraction):
        return torch.full((channels,), float(value), dtype=torch.float64)
    if channels % len(value):
        raise CannotFold(f'{use.path} has {channels} channels, but the gate in front of it {len(value)}')
    return value.repeat_interleave(channels // len(value))


__all__ = ['CannotFold', 'Fold', 'fold', 'words']
