"""SimAM (Yang et al., ICML 2021): 3-D attention weights from a closed-form energy, without parameters."""

from torch import Tensor

from timm_attn.ops.statistics import channel_moments, widen


def simam_weights(x: Tensor, e_lambda: float) -> Tensor:
    """sigmoid(1 / e*) of SimAM Eq. 5 and 6, with 1 / e* = (t - mu)^2 / (4 (var + lambda)) + 0.5.

    The variance divides by M - 1, as in the paper's Figure 3 and the authors' code; Eq. 5 as printed divides by M.

    Args:
        x: the feature map, (N, C, H, W); mu and var are those of each channel's pixels.
        e_lambda: the regulariser lambda of Eq. 2.

    Returns:
        One weight a neuron, (N, C, H, W), in [sigmoid(0.5), 1); float32 for half-precision maps.
    """
    _, deviations, variance = channel_moments(widen(x))
    importance = deviations / (4 * (variance + e_lambda)) + 0.5
    return importance.sigmoid()


def simam(x: Tensor, e_lambda: float = 1e-4) -> Tensor:
    """The refined map of SimAM Eq. 6, sigmoid(1 / E) * X, in the dtype and memory format of X, (N, C, H, W)."""
    return (x * simam_weights(x, e_lambda)).type_as(x)
