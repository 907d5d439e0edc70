"""The maps and the attention of a net, stage by stage."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from timm_attn.analysis.hooks import feature_map, find_layers, hooked, observed, refuse_compiled, run
from timm_attn.attention import attention_layers


class StageView(NamedTuple):
    """The output of a stage, and the input, factor and output of the last attention layer in it.

    Args:
        path: the stage's path in the model.
        features: its output, (N, C, H, W).
        layer: the attention layer's path, None where the stage has none.
        before, factor, after: that layer's input, attention (see attention_maps) and output, (N, C', H', W').
    """

    path: str
    features: Tensor
    layer: str | None = None
    before: Tensor | None = None
    factor: Tensor | None = None
    after: Tensor | None = None


def stage_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose outputs are timm's features of a net (feature_info), by their paths.

    Raises:
        ValueError: the net does not say what its stages are, or is scripted or compiled.
    """
    refuse_compiled(model)
    infos: Any = getattr(model, 'feature_info', None) or ()
    modules = dict(model.named_modules())
    paths = [info['module'] for info in infos if info['module'] in modules]
    if not paths:
        raise ValueError(f'{type(model).__name__} has no feature_info that names its stages: name the layers.')
    return find_layers(model, paths)


@torch.no_grad()
def stage_views(model: nn.Module, images: Tensor) -> list[StageView]:
    """Every stage of a net for normalised images (BAM Figures 5 and 6), in the order in which they run."""
    stages = stage_layers(model)
    attention = attention_layers(model)
    views: list[StageView] = []
    last: dict[str, Any] = {}

    def after(path: str, layer: Any, x: Tensor, y: Any) -> None:
        if path in attention:
            last.update(layer=path, before=x.clone(), factor=layer.attention(x), after=y.clone())
        if path in stages:
            views.append(StageView(path, feature_map(path, y).clone(), **last))
            last.clear()

    with observed(model), hooked({**stages, **attention}, after=after):
        run(model, images)
    return views
