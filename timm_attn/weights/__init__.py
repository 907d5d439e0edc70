"""Checkpoints: what there is, where it is, and whether it is what it says."""

from timm_attn.weights.convert import convert_state_dict
from timm_attn.weights.manifest import Checkpoint, checkpoints, checkpoints_of, find_checkpoint
from timm_attn.weights.verify import check_keys, verified_path

__all__ = [
    'Checkpoint',
    'check_keys',
    'checkpoints',
    'checkpoints_of',
    'convert_state_dict',
    'find_checkpoint',
    'verified_path',
]
