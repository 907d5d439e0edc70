"""Faster R-CNN and Mask R-CNN of torchvision on any backbone of timm or of the zoo."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from torch import nn
from torch.utils._pytree import tree_map
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from timm_attn.downstream.backbone import Features, Pyramid
from timm_attn.downstream.checks import Checked
from timm_attn.downstream.losses import L1RegionProposalNetwork, L1RoIHeads

_RATIOS = (0.5, 1.0, 2.0)  # height / width of the anchors
_OF_PICTURES = ('size_divisible', 'fixed_size')  # options of torchvision's transform, behind the detector's own
BOX_LOSSES = ('smooth_l1', 'l1')


class _FasterRCNN(Checked, FasterRCNN):  # type: ignore[misc]
    pass


class _MaskRCNN(Checked, MaskRCNN):  # type: ignore[misc]
    pass


def faster_rcnn(
    backbone: str,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_kwargs: Mapping[str, Any] | None = None,
    out_indices: Sequence[int] | None = None,
    trainable_stages: int | None = None,
    fpn_channels: int = 256,
    anchor_scale: float = 8,
    sampling_ratio: int = 2,
    box_loss: str = 'smooth_l1',
    **options: Any,
) -> nn.Module:
    """Faster R-CNN with a feature pyramid (SimAM Table 4, BAM Tables 5 and 6): torchvision's, on a timm backbone.

    In training a list of pictures [C, H, W] from 0 to 1 and a list of targets (boxes [N, 4] as x1, y1, x2, y2 in
    pixels, labels [N] from 1 on) give the losses; else the pictures alone give boxes, labels and scores.

    Args:
        backbone: of timm or of the zoo, with or without a tag, with features of at least two strides.
        num_classes: with the background, which is class 0.
        pretrained_backbone: load the backbone's checkpoint.
        backbone_kwargs: of timm.create_model, such as attn_kwargs or in_chans.
        out_indices: which of timm's features the pyramid has; by default one of each stride from 4 pixels on.
        trainable_stages: see Features; 3 is what the papers' ResNets have.
        fpn_channels: of each map of the pyramid.
        anchor_scale: side of an anchor / stride of its map.
        sampling_ratio: of RoIAlign, 2 as in torchvision; 0 takes as many points as there are, as in mmdetection.
        box_loss: 'smooth_l1' with beta 1/9 as in torchvision, or 'l1' as in mmdetection.
        options: the others are torchvision's for FasterRCNN, such as min_size or box_detections_per_img.

    Raises:
        ValueError: the backbone has no such features, or num_classes is below 2.
    """
    return _detector(
        _FasterRCNN,
        backbone,
        num_classes,
        pretrained_backbone=pretrained_backbone,
        backbone_kwargs=backbone_kwargs,
        out_indices=out_indices,
        trainable_stages=trainable_stages,
        fpn_channels=fpn_channels,
        anchor_scale=anchor_scale,
        sampling_ratio=sampling_ratio,
        box_loss=box_loss,
        **options,
    )


def mask_rcnn(
    backbone: str,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_kwargs: Mapping[str, Any] | None = None,
    out_indices: Sequence[int] | None = None,
    trainable_stages: int | None = None,
    fpn_channels: int = 256,
    anchor_scale: float = 8,
    sampling_ratio: int = 2,
    box_loss: str = 'smooth_l1',
    **options: Any,
) -> nn.Module:
    """Mask R-CNN with a feature pyramid (SimAM Table 4): torchvision's, on a timm backbone.

    As faster_rcnn, whose arguments it takes; targets also have masks [N, H, W], and detections masks [N, 1, H, W] of
    probabilities.
    """
    return _detector(
        _MaskRCNN,
        backbone,
        num_classes,
        mask_size=14,
        pretrained_backbone=pretrained_backbone,
        backbone_kwargs=backbone_kwargs,
        out_indices=out_indices,
        trainable_stages=trainable_stages,
        fpn_channels=fpn_channels,
        anchor_scale=anchor_scale,
        sampling_ratio=sampling_ratio,
        box_loss=box_loss,
        **options,
    )


def _detector(
    kind: type[nn.Module],
    backbone: str,
    num_classes: int,
    *,
    mask_size: int = 0,
    pretrained_backbone: bool,
    backbone_kwargs: Mapping[str, Any] | None,
    out_indices: Sequence[int] | None,
    trainable_stages: int | None,
    fpn_channels: int,
    anchor_scale: float,
    sampling_ratio: int,
    box_loss: str,
    **options: Any,
) -> nn.Module:
    if num_classes < 2:
        raise ValueError(f'num_classes must be at least 2, the background and a class, but got {num_classes}.')
    if box_loss not in BOX_LOSSES:
        raise ValueError(f'box_loss must be one of {", ".join(BOX_LOSSES)}, but got {box_loss!r}.')
    _refuse_unknown(kind, options)
    features = Features(
        backbone,
        pretrained=pretrained_backbone,
        out_indices=out_indices,
        trainable_stages=trainable_stages,
        kwargs=backbone_kwargs,
    )
    pyramid = Pyramid(features, fpn_channels)
    mean, std = features.statistics()
    maps = [str(level) for level in range(len(features.strides))]
    sizes = tuple((int(anchor_scale * stride),) for stride in pyramid.strides)
    settings: dict[str, Any] = dict(
        image_mean=mean,
        image_std=std,
        rpn_anchor_generator=AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(maps, output_size=7, sampling_ratio=sampling_ratio),
    )
    if mask_size:
        settings['mask_roi_pool'] = MultiScaleRoIAlign(maps, output_size=mask_size, sampling_ratio=sampling_ratio)
    model: Any = kind(pyramid, num_classes, **{**settings, **options})
    for head in (model.rpn.head, model.roi_heads.box_predictor, model.roi_heads.mask_predictor):
        if head is not None:
            head.register_forward_hook(_in_float32)
    if box_loss == 'l1':  # the same modules, of which one method differs
        model.rpn.__class__, model.roi_heads.__class__ = L1RegionProposalNetwork, L1RoIHeads
    model.in_chans, model.num_classes = features.in_chans, num_classes
    model.settings = dict(mean=model.transform.image_mean, std=model.transform.image_std, model_kwargs=features.kwargs)
    return model.train()


def _refuse_unknown(kind: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Raises a TypeError for an option that torchvision would take and leave without effect."""
    known = {name for base in kind.__mro__[:-1] for name in signature(base).parameters}
    unknown = sorted({*options} - known - {*_OF_PICTURES})
    if unknown:
        raise TypeError(f'{unknown[0]!r} is no option of this detector or of torchvision.')


def _in_float32(head: nn.Module, inputs: Any, output: Any) -> Any:
    """A head's output under autocast: torchvision decodes boxes in its dtype, in bfloat16 to 4 pixels of 640."""
    return tree_map(lambda value: value.float(), output)
