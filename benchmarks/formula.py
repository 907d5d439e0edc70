"""SimAM as the paper prints it, operation by operation: the reference of our paths."""

import torch
from torch import Tensor, nn
from torch.types import Device

from timm_attn.attention import Attention


def paper_simam(x: Tensor, e_lambda: float) -> Tensor:
    """X * sigmoid((X - mean)^2 / (4 (sum (X - mean)^2 / (M - 1) + lambda)) + 0.5), (N, C, H, W) (SimAM Figure 3)."""
    deviations = (x - x.mean(dim=(2, 3), keepdim=True)).pow(2)
    variance = deviations.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
    return x * torch.sigmoid(deviations / (4 * (variance + e_lambda)) + 0.5)


class PaperSimAM(nn.Module):
    """The formula as a layer; a map of one pixel is NaN, as it is there."""

    def __init__(
        self, channels: int, *, e_lambda: float, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        return paper_simam(x, self.e_lambda)


FORMULA = Attention(PaperSimAM, 'conv', "SimAM, the paper's formula", 'ICML 2021, PMLR 139:11863-11874')
