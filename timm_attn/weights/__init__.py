"""Checkpoints: the manifest, the local store, verification, conversion."""

from timm_attn.weights.convert import convert_state_dict
from timm_attn.weights.manifest import Checkpoint, checkpoints, checkpoints_of, find_checkpoint
from timm_attn.weights.resolve import (
    builder_arguments,
    cfg_fields,
    check_config,
    check_size,
    chosen_checkpoint,
    keep_label_names,
    source_fields,
)
from timm_attn.weights.verify import verified_path

__all__ = [
    'Checkpoint',
    'builder_arguments',
    'cfg_fields',
    'check_config',
    'check_size',
    'checkpoints',
    'checkpoints_of',
    'chosen_checkpoint',
    'convert_state_dict',
    'find_checkpoint',
    'keep_label_names',
    'source_fields',
    'verified_path',
]
