"""The nets of the papers' downstream tables: detectors, scene parsing and super-resolution."""

from timm_attn.downstream.detectors import faster_rcnn, mask_rcnn
from timm_attn.downstream.srresnet import srresnet
from timm_attn.downstream.ssd import ssd300
from timm_attn.downstream.stairnet import stairnet300
from timm_attn.downstream.upernet import upernet

__all__ = ['faster_rcnn', 'mask_rcnn', 'srresnet', 'ssd300', 'stairnet300', 'upernet']
