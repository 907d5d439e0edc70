"""What the attention that a new layer replaces has done on average: a factor per channel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_attn.attach.probe import in_evaluation
from timm_attn.attach.spot import Spot

_MAPS = 16  # that are drawn
_LEAST = 0.01  # of a layer's mean gate: what is scaled by less would not learn


@torch.no_grad()
def mean_gates(model: nn.Module, spots: Sequence[Spot], images: Tensor, drawn: bool) -> list[Tensor]:
    """The factor of every channel, (C,), by which the old attention at each spot has multiplied its map on average.

    It is g of the least squares of y = g x over the maps x of the images. With `drawn`, those of images that mean
    nothing, x is drawn where a batch norm is in front: the norm's output for normal maps of its running statistics.
    """
    norm_of: dict[int, tuple[Any, Tensor]] = {}  # by the id of its output, which is kept, so that ids stay unique
    gates: dict[str, Tensor] = {}

    def remember(norm: nn.Module, args: Any, out: Tensor) -> None:
        norm_of[id(out)] = norm, out

    def measure(spot: Spot, layer: nn.Module) -> Callable[..., None]:
        def before(module: nn.Module, args: Any) -> None:
            x = args[0]
            norm, _ = norm_of.get(id(x), (None, x))
            x = _drawn(norm, x.shape) if norm is not None else x
            gates[spot.path] = _slope(x, layer.forward(x), spot.channels_last)

        return before

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_var is not None] if drawn else []
    handles: list[Any] = [norm.register_forward_hook(remember) for norm in norms]
    handles += [spot.old.register_forward_pre_hook(measure(spot, spot.old)) for spot in spots if spot.old is not None]
    try:
        with in_evaluation(model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [gates[spot.path] for spot in spots]


def _drawn(norm: Any, shape: torch.Size) -> Tensor:
    """A norm's outputs, (N, C, H, W), its activation included."""
    deviation, mean = (norm.running_var + norm.eps).sqrt(), norm.running_mean
    normal = torch.randn(_MAPS, *shape[1:], device='cpu').to(mean)
    drawn: Tensor = norm.forward(normal * deviation[:, None, None] + mean[:, None, None])
    return drawn


def _slope(x: Tensor, y: Tensor, channels_last: bool) -> Tensor:
    """g (C,) of the least squares of y = g x; of all channels together where x is 0 throughout or g is too small."""
    if channels_last:
        x, y = x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2)
    x, y = x.double(), y.double()
    products, squares = (x * y).sum((0, 2, 3)), x.square().sum((0, 2, 3))
    whole = products.sum() / squares.sum()
    if not 0 < whole < float('inf'):
        return torch.ones_like(products)
    slope = torch.where(squares > 0, products / squares.where(squares > 0, 1), whole)
    return slope.clamp(min=_LEAST * float(whole))
