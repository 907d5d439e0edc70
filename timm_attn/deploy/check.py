"""Runs a net and its fused copy on random images: torch.fx does not see all that a forward may do."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

_SIDE = 64  # pixels of an image, unless the net has another fixed or smaller size
_TOLERANCE = 1e-2  # relative to the largest output
_ROUNDED = {torch.float16: 0.1, torch.bfloat16: 0.3}  # where the dtype rounds more coarsely
_ROUNDING = 8  # of the images, in units of their dtype's precision
_NOISE = 100  # how often the difference that such a rounding makes in the net itself


def random_images(model: nn.Module) -> Tensor | None:
    """Two images for a net, (2, C, H, W), of its dtype and on its device; None if that is not known."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if parameter is None or conv is None or parameter.device.type == 'meta':
        return None
    cfg: Any = getattr(model, 'pretrained_cfg', None) or {}
    _, *side = cfg.get('input_size') or (3, _SIDE, _SIDE)
    height, width = side if cfg.get('fixed_input_size') else (min(_SIDE, n) for n in side)
    made = torch.randn(2, conv.in_channels, height, width, generator=torch.Generator().manual_seed(0))
    return made.to(parameter.device, parameter.dtype)


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The tensors that a net returns, in their order."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # alone: those of devices stay as they are
        return [t.detach().clone() for t in tree_leaves(model(images)) if isinstance(t, Tensor)]


def expected_outputs(model: nn.Module, images: Tensor, name: str) -> tuple[list[Tensor], float] | None:
    """A net's outputs, and how much rounding changes them; None if it takes other images.

    Raises:
        ValueError: the outputs change from call to call.
    """
    try:
        first, again = outputs(model, images), outputs(model, images)
        rounded = outputs(model, images * (1 + _ROUNDING * torch.finfo(images.dtype).eps))
    except Exception:  # a net of any kind may want any input: then there is nothing to compare
        return None
    changed, noise = difference(first, again), difference(first, rounded)
    if changed > _ROUNDED.get(images.dtype, _TOLERANCE):
        raise ValueError(
            f'{name} cannot be fused: it gives other outputs when it is called again, by {changed:.2g} of the largest.'
        )
    return first, noise


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference of two lists of tensors, relative to the largest value; inf if their shapes differ."""
    if [t.shape for t in a] != [t.shape for t in b]:
        return float('inf')
    found = 0.0
    for one, other in zip(a, b, strict=True):
        if one.is_floating_point() and one.numel() and one.isfinite().all():
            scale = one.abs().max().item() or 1.0
            gap = (one.double() - other.double()).abs().max().item() / scale
            found = max(found, gap) if gap == gap else float('inf')
    return found


def check_same(fused: nn.Module, images: Tensor, expected: tuple[list[Tensor], float], name: str) -> None:
    """Raises ValueError unless a fused net computes what the net does."""
    first, noise = expected
    try:
        found = difference(first, outputs(fused, images))
    except Exception as error:  # of a graph of unknown operations
        raise ValueError(f'{name} cannot be fused: its graph does not run, {" ".join(str(error).split())}') from error
    if found > _ROUNDED.get(images.dtype, _TOLERANCE) + _NOISE * noise:
        raise ValueError(
            f'{name} cannot be fused: its forward does what torch.fx does not see, and the outputs would differ by '
            f'{found:.2g} of the largest.'
        )
