"""timm's model arguments for nets of our own: features, stochastic depth, output stride."""

from collections.abc import Iterable, Sequence
from typing import Any

from timm.layers import DropPath, calculate_drop_path_rates
from timm.models._features import FeatureGetterNet
from torch import nn


class GetterFeatures(FeatureGetterNet):
    """timm's features through forward_intermediates, which can also be trained with gradient checkpointing.

    For nets whose stages are no plain sequence of modules.
    """

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        model: Any = self.model
        model.set_grad_checkpointing(enable)


def set_drop_path(blocks: Iterable[nn.Module], rate: float) -> None:
    """Gives residual blocks timm's DropPath, from none in the first block to the rate in the last."""
    residual: list[Any] = list(blocks)
    rates: Any = calculate_drop_path_rates(rate, len(residual))
    for block, block_rate in zip(residual, rates, strict=True):
        if block_rate > 0:
            block.drop_path = DropPath(block_rate)


def check_output_stride(net: Any, asked: int | None) -> None:
    """Raises ValueError unless it is left out or the net's own stride: nets that call this have no dilated form."""
    own = net.feature_info[-1]['reduction']
    if asked not in (None, own):
        raise ValueError(f'output_stride must be {own}, as this net has no dilated form, but got {asked!r}.')


def check_out_indices(net: Any, asked: int | Sequence[int] | None) -> None:
    """Raises ValueError unless the net has the features that timm's out_indices asks for; None is timm's default."""
    count = len(net.feature_info)
    indices = range(-asked, 0) if isinstance(asked, int) else asked or ()
    if any(not -count <= index < count for index in indices):
        raise ValueError(
            f'out_indices must be from 0 to {count - 1} (or from -{count} to -1, counted from the end), as the net has '
            f'{count} features, but got {asked!r}.'
        )
