"""A trained net, real images for it, and states to compare."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from timm_attn.data.fashion_mnist import FashionMNIST


def plain_net(**kwargs: Any) -> nn.Module:
    """A trained net."""
    net: nn.Module = timm.create_model('cifar_resnet20', pretrained=True, **kwargs)
    return net


def real_images(count: int, split: str = 'train') -> Tensor:
    data = FashionMNIST(split)
    pixels = torch.stack([torch.tensor(data.images[i]) for i in range(count)])
    return ((pixels / 255 - 0.286) / 0.353)[:, None].expand(-1, 3, -1, -1).contiguous()


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = net.eval()(x)
    return found


def state_of(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def is_unchanged(net: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
