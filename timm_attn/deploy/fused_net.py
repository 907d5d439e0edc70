"""What fuse returns."""

from typing import Any

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function


class FusedNet(nn.Module):
    """A graph of layers, and the attributes of the original net that timm's data tools read."""

    def __init__(self, layers: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        for name in ('num_classes', 'pretrained_cfg'):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> 'FusedNet':
        if mode:
            raise RuntimeError('A fused net is for inference, its norms are gone: train the net that it was made of.')
        return super().train(False)

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def add_to(x: Tensor, other: Tensor) -> Tensor:
    """x + other, which overwrites x if that has the shape and the dtype of the other."""
    if has_torch_function((x, other)):  # one node of a torch.fx graph, which cannot branch on a shape
        return handle_torch_function(add_to, (x, other), x, other)
    return x.add_(other) if x.shape == other.shape and x.dtype == other.dtype else x + other
