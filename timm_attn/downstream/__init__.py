"""Detection and instance segmentation with any backbone of timm or of the zoo, as in the papers' downstream tables."""

from timm_attn.downstream.detectors import faster_rcnn, mask_rcnn

__all__ = ['faster_rcnn', 'mask_rcnn']
