"""A published checkpoint for tests, and the folder in which its file is kept."""

from typing import Any

import timm

from timm_attn.weights import store

NAME, TAG, REPO = 'cifar_preresnet20_se', 'toy', 'org/toy'


def model() -> Any:
    return timm.create_model(f'{NAME}.{TAG}', pretrained=True)


def folder_is_clean() -> bool:
    return not any(p.suffix != '.safetensors' for p in store.store_dir().glob('*'))
