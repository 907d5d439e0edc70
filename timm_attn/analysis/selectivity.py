"""The class selectivity of feature maps (Morcos et al., ICLR 2018; BAM Section 6.1 and Figure 4)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from timm_attn.analysis.class_means import ClassMeans, class_means
from timm_attn.analysis.hooks import feature_map, find_layers, hooked, observed, require_run
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
            compiled; the images are no batch for it; there is not one label of a class for each; fewer than two classes
            have images; an activity is NaN or infinite.
    """
    chosen = stage_layers(model) if layers is None else find_layers(model, layers)
    activity: dict[str, Tensor] = {}

    def measure(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        activity[path] = feature_map(path, y).relu().mean(dim=(2, 3)).cpu()

    with observed(model), hooked(chosen, after=measure):
        means = class_means(model, batches, num_classes, activity)
    require_run(chosen, means)
    return {path: selectivity_index(of_layer) for path, of_layer in means.items()}


def selectivity_index(activity: ClassMeans) -> Tensor:
    """(m_max - m_rest) / (m_max + m_rest) of the classes' mean activities: 0 equal for all, 1 for one class alone.

    m_max is the highest of the classes' means and m_rest the mean of the others; a map that is never active has 0.
    Classes without images are left out.

    Shape: means (classes, C), finite and not negative -> (C,).

    Raises:
        ValueError: fewer than two classes have images, or a mean is not such a number.
    """
    (classes,) = activity.counts.nonzero(as_tuple=True)
    present = activity.means[classes]
    wrong = classes[~((present >= 0) & present.isfinite()).all(dim=1)]
    if len(wrong):
        raise ValueError(f'Activities must be finite and not negative, but those of class {int(wrong[0])} are not.')
    if len(present) < 2:
        raise ValueError(f'Selectivity compares classes, but only {len(present)} of them has images.')
    highest = present.amax(dim=0)
    rest = (present.sum(dim=0) - highest) / (len(present) - 1)
    total = highest + rest
    return torch.where(total > 0, (highest - rest) / total, torch.zeros_like(total))
