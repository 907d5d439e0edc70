"""Attention that is put into a net without a change of what the net computes."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from timm_attn.attach.gates import mean_gates
from timm_attn.attach.probe import example_of, in_evaluation
from timm_attn.attach.spot import Spot
from timm_attn.attention import AttentionLayer, SimAM, attention_layers
from timm_attn.warm_start.folds import Fold
from timm_attn.warm_start.inputs import refuse_meta
from timm_attn.warm_start.start import start
from timm_attn.warm_start.walk import tensors_in

_ROUNDING = 1e-3  # of the largest output


class Started(NamedTuple):
    """A start: the layers' factors, None for SimAM; the mean gates of what they replace; what was scaled for both."""

    factors: Sequence[float | None]
    gates: Sequence[Tensor | None]
    folds: Sequence[Fold]


def start_as_identity(
    model: nn.Module,
    spots: Sequence[Spot],
    layers: Sequence[nn.Module],
    put: Callable[[], Callable[[], None]],
    example: Tensor | None,
) -> Started:
    """Puts layers into a net by `put` and gives them their identity start, or that of the mean gate that they replace.

    Raises:
        ValueError: the net would compute something else; the layers are out again then, and the weights as before.
    """
    refuse_meta(model)
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError(f'{type(model).__name__} was made under torch.inference_mode(): its weights cannot be scaled.')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn_like(example_of(model)) if example is None else example
    expected = _outputs(model, images)
    if not len(expected) or not expected.isfinite().all():
        what = 'noise' if example is None else 'the example'
        raise ValueError(f'{type(model).__name__} has no outputs, or none that are finite, on {what}: it has no start.')
    replaced = any(spot.replace for spot in spots)
    gates = mean_gates(model, spots, images, drawn=example is None) if replaced else [None] * len(spots)
    undo = put()
    try:
        new = {path: layer for path, layer in attention_layers(model).items() if layer in layers}
        paths: dict[nn.Module, str] = {layer: path for path, layer in new.items()}
        inside = tuple(f'{path}.' for path in new)
        plain = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith(inside)}
        gated = {paths[layer]: gate for layer, gate in zip(layers, gates, strict=True) if gate is not None}
        folds = start(model, plain, None, new, gated, images)
        found = _outputs(model, images)
        largest = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        approximate = replaced or any(isinstance(layer, SimAM) for layer in layers)
        if not approximate and not largest <= _ROUNDING:
            raise ValueError(f'{type(model).__name__} would not start as it was, but differ by {largest:.1g}.')
    except Exception:
        undo()
        model.load_state_dict(before)
        raise
    if replaced:
        share = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt().clamp(min=1e-30))
        on = 'the example' if example is not None else 'an image of noise; your images as example start it nearer'
        warnings.warn(
            f'The start of layers that replace trained attention is approximate, by its mean gate: the outputs of '
            f'{type(model).__name__} differ by {share:.1%} of their size on {on}.',
            stacklevel=4,  # the caller of attach, which has a decorator
        )
    return Started([_factor(layer) for layer in layers], gates, folds)


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    """All that a net returns, as one vector."""
    with in_evaluation(model):
        outputs = list(tensors_in(model(images)))
    return torch.cat([output.double().flatten() for output in outputs])


def _factor(layer: nn.Module) -> float | None:
    """The constant factor of a layer at its start."""
    if isinstance(layer, SimAM) or not isinstance(layer, AttentionLayer):
        return None
    return copy.deepcopy(layer).identity_start()
