"""The class selectivity of feature maps (Morcos et al., ICLR 2018; BAM Section 6.1 and Figure 4)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from timm_attn.analysis.class_means import ClassMeans
from timm_attn.analysis.hooks import feature_map, find_layers, hooked, observed
from timm_attn.analysis.stages import stage_layers


@torch.no_grad()
def class_selectivity(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    layers: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """The index of every feature map at the end of every stage, (C,) in float64, by the stage's path.

    The index is that of `selectivity_index` for a map's activity: the mean over its positions after a ReLU, which
    changes nothing where the stage ends with one, and keeps the index within 0 and 1 where it does not. Only sums are
    kept, so that memory does not grow with the dataset.

    Args:
        batches: normalised images (N, 3, H, W), where the model is, and labels (N,), such as timm's loaders give.
        layers: paths of other layers than the stages.

    Raises:
        ValueError: there is no such layer (the message lists them), the model names no stages or is scripted or
            compiled, a label is out of range, or fewer than two classes have images.
    """
    chosen = stage_layers(model) if layers is None else find_layers(model, layers)
    activity: dict[str, Tensor] = {}
    means: dict[str, ClassMeans] = {}

    def measure(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        activity[path] = feature_map(path, y).relu().mean(dim=(2, 3)).cpu()

    with observed(model), hooked(chosen, after=measure):
        for images, labels in batches:
            model(images)
            for path, values in activity.items():
                means.setdefault(path, ClassMeans.zeros(num_classes, values.shape[1])).add(values, labels.cpu())
    if not means:
        raise ValueError('There are no images to measure the selectivity on.')
    return {path: selectivity_index(of_layer.means) for path, of_layer in means.items()}


def selectivity_index(class_means: Tensor) -> Tensor:
    """(m_max - m_rest) / (m_max + m_rest) of the classes' mean activities: 0 equal for all, 1 for one class alone.

    m_max is the highest of the classes' means and m_rest the mean of the others; a map that is never active has 0.

    Shape: (classes, C), not negative, NaN for a class without images -> (C,).

    Raises:
        ValueError: fewer than two classes have images.
    """
    present = class_means[~class_means.isnan().any(dim=1)]
    if len(present) < 2:
        raise ValueError(f'Selectivity compares classes, but only {len(present)} of them has images.')
    highest = present.amax(dim=0)
    rest = (present.sum(dim=0) - highest) / (len(present) - 1)
    total = highest + rest
    return torch.where(total > 0, (highest - rest) / total, torch.zeros_like(total))
