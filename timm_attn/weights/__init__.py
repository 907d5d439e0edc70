"""Checkpoints: the manifest, the local store, verification, conversion."""

from timm_attn.weights.convert import convert_state_dict
from timm_attn.weights.manifest import Checkpoint, checkpoints, checkpoints_of, find_checkpoint
from timm_attn.weights.resolve import (
    NO_SOURCE,
    SOURCES,
    builder_arguments,
    cfg_fields,
    check_build,
    check_config,
    chosen_checkpoint,
    keep_label_names,
    source_fields,
)
from timm_attn.weights.verify import verified_path

__all__ = [
    'NO_SOURCE',
    'SOURCES',
    'Checkpoint',
    'builder_arguments',
    'cfg_fields',
    'check_config',
    'check_build',
    'checkpoints',
    'checkpoints_of',
    'chosen_checkpoint',
    'convert_state_dict',
    'find_checkpoint',
    'keep_label_names',
    'source_fields',
    'verified_path',
]
