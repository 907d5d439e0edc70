"""Grad-CAM (Selvaraju et al., ICCV 2017): where a layer's map supports a class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn.analysis.hooks import (
    described,
    feature_map,
    find_layers,
    hooked,
    observed,
    require_images,
    require_run,
    run,
)
from timm_attn.attention import GC, AttentionLayer

PLACES = ('before', 'after', 'weights')


def grad_cam(
    model: nn.Module,
    images: Tensor,
    layer: str,
    *,
    place: str = 'after',
    classes: int | Sequence[int] | Tensor | None = None,
) -> Tensor:
    """relu(sum_c mean_ij(dS / dA_cij) * A_c) of a map A of a ConvNet and the logit S of a class, one map per image.

    Shape: (N, 3, H, W) -> (N, h, w), at the resolution of A; `resized` brings it to the input's. The model, its modes
    and the gradients of its parameters stay as they are.

    Args:
        layer: its path in the model, such as 'layer4' or 'layer4.1.conv_attn'.
        place: what A is: the layer's input ('before'; the gradient is what comes through the layer), its output
            ('after'), or, of an attention layer, the 'weights' that it applies (SimAM Figure 6).
        classes: the class of every image, or one for all; by default the predicted ones.

    Raises:
        ValueError: there is no such layer (the message lists them) or place, a class is out of range, A is no batch of
            maps or is not used for the logits, the weights do not vary over the positions, the images are no batch for
            the model, or it has no classifier or is scripted or compiled.
    """
    if place not in PLACES:
        raise ValueError(f'Unknown place {place!r}: choose from {", ".join(PLACES)}.')
    found = find_layers(model, [layer])
    if getattr(model, 'num_classes', None) == 0:  # its pooled features have the shape of logits
        raise ValueError(f'{type(model).__name__} has no classifier (num_classes=0): Grad-CAM explains a logit.')
    require_images(images)
    taken: dict[str, Tensor] = {}
    with observed(model), torch.inference_mode(False), torch.enable_grad(), _TAKE[place](found, taken):
        # gradients reach every map through the images, also where the parameters are frozen
        logits = run(model, images.detach().clone().requires_grad_().clone())
        score = _scores(logits, classes).sum()
        require_run([layer], taken)
        gradient = torch.autograd.grad(score, taken[layer], allow_unused=True)[0]
    if gradient is None:
        raise ValueError(f'The logits do not depend on the map {place} layer {layer!r}.')
    importance = gradient.mean(dim=(2, 3), keepdim=True)
    return (importance * taken[layer].detach()).sum(dim=1).relu()


def _before(layers: Mapping[str, nn.Module], taken: dict[str, Tensor]) -> Any:
    def take(path: str, layer: nn.Module, x: Any) -> Tensor:
        taken[path] = feature_map(path, x).clone()  # a node of its own: other layers may use x, too
        return taken[path].clone()  # the next layer may work in place

    return hooked(layers, before=take)


def _after(layers: Mapping[str, nn.Module], taken: dict[str, Tensor]) -> Any:
    def take(path: str, layer: nn.Module, x: Any, y: Any) -> Tensor:
        taken[path] = feature_map(path, y).clone()
        return taken[path].clone()

    return hooked(layers, after=take)


def _weights(layers: Mapping[str, nn.Module], taken: dict[str, Tensor]) -> Any:
    """The layer's output is computed once more from its weights, since a layer need not have a tensor of them."""
    for path, layer in layers.items():
        if not isinstance(layer, AttentionLayer):
            raise ValueError(f'Layer {path!r} is no attention layer but {type(layer).__name__}: it has no weights.')

    def take(path: str, layer: AttentionLayer, x: Tensor, y: Tensor) -> Tensor:
        taken[path] = layer.attention(x)
        if isinstance(layer, GC) or taken[path].shape[2:] != x.shape[2:]:
            raise ValueError(f'The weights of {type(layer).__name__} at {path!r} do not vary over the positions.')
        return x * taken[path]

    return hooked(layers, after=take)


_TAKE: Mapping[str, Callable[..., Any]] = {'before': _before, 'after': _after, 'weights': _weights}


def _scores(logits: Any, classes: int | Sequence[int] | Tensor | None) -> Tensor:
    """The logit of the class of every image, (N,)."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError('Grad-CAM needs a classifier, whose output is a tensor of logits of shape (N, classes).')
    n, num_classes = logits.shape
    chosen = logits.argmax(dim=1) if classes is None else torch.as_tensor(classes, device=logits.device)
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise ValueError(f'Classes are numbers from 0 to {num_classes - 1}, but got {described(chosen)}.')
    if chosen.dim() == 0:
        chosen = chosen.repeat(n)
    if chosen.shape != (n,):
        raise ValueError(f'There are {n} images, but classes of shape {tuple(chosen.shape)}.')
    for index in chosen.tolist():
        if not 0 <= index < num_classes:
            raise ValueError(f'Class {index} is out of range: the classes are 0 to {num_classes - 1}.')
    return logits.gather(1, chosen[:, None])[:, 0]
