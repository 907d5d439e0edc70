"""The feature maps of any timm net as torchvision's detectors take them."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

_OWN = ('features_only', 'out_indices')  # arguments of timm.create_model that are not the user's
FINEST = 4  # pixels a step of the finest map of a pyramid, by default


class Features(nn.Module):
    """The feature maps of a timm net, finest first, as an ordered mapping '0', '1', ... to (N, C, H, W).

    Args:
        name: of timm or of the zoo, with or without a tag.
        out_indices: of timm's features; by default the last one of each stride from 4 pixels on.
        trainable_stages: how many of timm's features, from the last, are trained, and all that lies between them; what
            comes before is frozen, and every batch norm, those of attention included, keeps its statistics, as
            mmdetection has it (3 of a ResNet's 5 are its frozen_stages=1 with norm_eval). None trains all, with the
            statistics of each batch.
        kwargs: of timm.create_model.

    Raises:
        ValueError: the net has fewer than two features of different stride, or not those that are asked for.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        out_indices: Sequence[int] | None = None,
        trainable_stages: int | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        kwargs = dict(kwargs or {})
        plain: Any = timm.create_model(name, features_only=True, **kwargs, device='meta')
        chosen = _chosen(name, plain.feature_info.reduction(), out_indices)
        body: Any = timm.create_model(name, features_only=True, pretrained=pretrained, out_indices=chosen, **kwargs)
        self.body: nn.Module = body
        self.in_chans = int(kwargs.get('in_chans', 3))
        # with those of the checkpoint, which timm's factory adds
        self.kwargs = {key: value for key, value in body._model_args.items() if key not in _OWN} | kwargs
        self.channels: list[int] = body.feature_info.channels()
        self.strides: list[int] = body.feature_info.reduction()
        self.norms_learn = trainable_stages is None
        self.frozen: list[nn.Module] = []
        if trainable_stages is not None:
            self.frozen = _before(self.body, plain.feature_info.module_name(), trainable_stages)
            for module in self.frozen:
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> 'Features':
        """As usual, but what is frozen stays in evaluation mode."""
        super().train(mode)
        if not self.norms_learn:
            for module in (*self.frozen, *(m for m in self.modules() if isinstance(m, _BatchNorm))):
                module.training = False
        return self

    def forward(self, x: Tensor) -> 'OrderedDict[str, Tensor]':
        return OrderedDict((str(i), maps) for i, maps in enumerate(self.body(x)))

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the pictures that the net was made for, one value a channel."""
        body: Any = self.body
        cfg = body.pretrained_cfg
        mean, std = ([float(v) for v in cfg[key]] for key in ('mean', 'std'))
        if len(mean) == self.in_chans:
            return mean, std
        return [sum(mean) / len(mean)] * self.in_chans, [sum(std) / len(std)] * self.in_chans


class Pyramid(nn.Module):
    """Features, a feature pyramid over them, and a coarser map by subsampling its last: a detector's backbone."""

    def __init__(self, features: Features, channels: int) -> None:
        super().__init__()
        self.features = features
        self.fpn = FeaturePyramidNetwork(features.channels, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels
        self.strides = [*features.strides, 2 * features.strides[-1]]

    def forward(self, x: Tensor) -> 'OrderedDict[str, Tensor]':
        return self.fpn(self.features(x))


def _chosen(name: str, strides: Sequence[int], asked: Sequence[int] | None) -> tuple[int, ...]:
    """The indices of the features to take.

    Raises:
        ValueError: there are not enough, or not those.
    """
    last = {stride: index for index, stride in enumerate(strides)}
    if len(last) < 2:
        raise ValueError(
            f'A backbone needs features of at least two strides, but {name!r} has {len(strides)} of {strides}.'
        )
    if asked is None:
        return tuple(index for stride, index in last.items() if stride >= FINEST) or (last[max(last)],)
    wanted = [index for index in asked if isinstance(index, int) and 0 <= index < len(strides)]
    if not asked or len(wanted) < len(asked) or sorted({*wanted}) != wanted:
        raise ValueError(
            f'out_indices must be rising numbers from 0 to {len(strides) - 1}, as {name!r} has {len(strides)} features '
            f'(strides {strides}), but got {list(asked)}.'
        )
    taken = [strides[index] for index in wanted]
    if len({*taken}) < len(taken):
        raise ValueError(
            f'out_indices {wanted} of {name!r} have the strides {taken}, but each level needs its own stride.'
        )
    return tuple(wanted)


def _before(body: nn.Module, stages: Sequence[str], trained: int) -> list[nn.Module]:
    """The modules up to the last stage that is not trained.

    Raises:
        ValueError: the net has not so many stages.
    """
    if not 0 <= trained <= len(stages):
        raise ValueError(f'trainable_stages must be from 0 to {len(stages)} for this net, but got {trained}.')
    if trained == len(stages):
        return []
    named = list(_named(body))
    last = stages[len(stages) - trained - 1].replace('.', '_')
    ends = [place for place, (name, _) in enumerate(named) if f'{name}_'.startswith(f'{last}_')]
    return [module for _, module in named[: ends[-1] + 1]]


def _named(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules in their order, under their names in the net without features_only, dots as underscores."""
    for name, module in body.named_modules():
        yield name.replace('.', '_').removeprefix('model_'), module
