"""Files of the authors, as they would be downloaded."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from tests.support.vectors import fill, reference_state_dict
from timm_attn.weights import checkpoints

UPSTREAM = {c.name: c for c in checkpoints() if c.kind == 'upstream'}


# Names whose layout has logits of the authors' code: the row of the vectors.
WITH_LOGITS = {
    **{name: name for name in ('resnet18_simam', 'resnet34_simam', 'resnet50_simam', 'mobilenetv2_simam')},
    'resnet18_eca': 'resnet18_eca[k3577]',
    'resnet50_eca': 'resnet50_eca[k3557]',
    'mobilenetv2_eca': 'mobilenetv2_eca[k13]',
}


# The others: kernel sizes by stage, and how the authors call our keys.
OTHERS: dict[str, tuple[tuple[int, ...], tuple[str, str]]] = {
    'resnet101_simam': ((), (r'\.conv2\.', '.conv2.0.')),
    'resnext50_32x4d_simam': ((), (r'\.conv2\.', '.conv2.0.')),
    'resnet34_eca': ((3, 3, 5, 7), (r'\.se\.conv\.', '.eca.conv.')),
    'resnet101_eca': ((3, 3, 5, 7), (r'\.se\.conv\.', '.eca.conv.')),
    'resnet152_eca': ((3, 3, 5, 7), (r'\.se\.conv\.', '.eca.conv.')),
}


def authors_state_dict(name: str) -> dict[str, torch.Tensor]:
    if name in WITH_LOGITS:
        state = reference_state_dict(WITH_LOGITS[name])
    else:
        kernels, (ours, theirs) = OTHERS[name]
        shapes = {k: list(v.shape) for k, v in timm.create_model(name, device='meta').state_dict().items()}
        for key in shapes:
            if key.endswith('.se.conv.weight'):
                shapes[key] = [1, 1, kernels[int(key[len('layer')]) - 1]]
        state = {(key := re.sub(ours, theirs, k)): fill(key, shape) for k, shape in shapes.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def authors_file(folder: Path, name: str) -> Path:
    """As their scripts save it: data-parallel keys in a wrapper with what belongs to the training."""
    path = folder / 'model_best.pth.tar'
    state = {f'module.{k}': v for k, v in authors_state_dict(name).items()}
    extra = {'epoch': 100, 'arch': 'se_resnet', 'best_prec1': np.float64(77.4), 'args': argparse.Namespace(lr=0.1)}
    torch.save({'state_dict': state, **extra}, path)
    return path


def other_file(folder: Path, name: str) -> Path:
    """Another checkpoint of the same net."""
    state = authors_state_dict(name)
    return saved(folder, {**state, 'fc.bias': state['fc.bias'] + 1})


FILES = 1 + sum(c.kind == 'bundled' for c in checkpoints())  # with one that is imported


NAME, BUNDLED = 'resnet18_eca', 'cifar_resnet20_simam.fmnist'


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / 'x.pth')
    return folder / 'x.pth'
