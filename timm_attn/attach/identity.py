"""Attention that is put into a net without a change of what the net computes."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from timm_attn.attach.probe import example_of, in_evaluation
from timm_attn.attention import AttentionLayer, SimAM
from timm_attn.warm_start.folds import Fold
from timm_attn.warm_start.start import start

_ROUNDING = 1e-3  # of the largest output


def start_as_identity(
    model: nn.Module,
    layers: Sequence[nn.Module],
    put: Callable[[], Callable[[], None]],
    example: Tensor | None,
) -> tuple[list[float | None], list[Fold]]:
    """Puts layers into a net by `put` and gives them their identity start.

    Returns:
        The factors of the layers, None for SimAM, and what was scaled to undo them.

    Raises:
        ValueError: the net would compute something else; the layers are out again then, and the weights as before.
    """
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn_like(example_of(model)) if example is None else example
    expected = _outputs(model, images)
    undo = put()
    try:
        inside = tuple(f'{path}.' for path, module in model.named_modules() if isinstance(module, AttentionLayer))
        plain = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith(inside)}
        folds = start(model, plain, None)
        deviation = float((_outputs(model, images) - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        if not any(isinstance(layer, SimAM) for layer in layers) and not deviation <= _ROUNDING:
            raise ValueError(f'{type(model).__name__} would not start as it was, but differ by {deviation:.1g}.')
    except Exception:
        undo()
        model.load_state_dict(before)
        raise
    return [_factor(layer) for layer in layers], folds


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    with in_evaluation(model):
        outputs: Tensor = model(images)
    return outputs.double()


def _factor(layer: nn.Module) -> float | None:
    """The constant factor of a layer at its start."""
    if isinstance(layer, SimAM) or not isinstance(layer, AttentionLayer):
        return None
    return copy.deepcopy(layer).identity_start()
