"""Functions (model, images) -> tensors: attention maps, Grad-CAM, selectivity, cost; no plotting."""

from timm_attn.analysis.attention_maps import attention_maps, branch_maps, channel_profile, resized, spatial_map
from timm_attn.analysis.channel_profiles import channel_profiles
from timm_attn.analysis.class_means import ClassMeans
from timm_attn.analysis.cost import Cost, cost_report
from timm_attn.analysis.grad_cam import grad_cam
from timm_attn.analysis.selectivity import class_selectivity, selectivity_index
from timm_attn.analysis.stages import StageView, stage_layers, stage_views

__all__ = [
    'ClassMeans',
    'Cost',
    'StageView',
    'attention_maps',
    'branch_maps',
    'channel_profile',
    'channel_profiles',
    'class_selectivity',
    'cost_report',
    'grad_cam',
    'resized',
    'selectivity_index',
    'spatial_map',
    'stage_layers',
    'stage_views',
]
