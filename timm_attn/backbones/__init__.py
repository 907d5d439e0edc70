"""The backbones and their table. A backbone that timm has is a row in BACKBONES; another is a file here and its row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import model_entrypoint
from torch import nn

from timm_attn.backbones.cifar_resnet import CifarResNet
from timm_attn.backbones.features import GetterFeatures

SITES = ('conv', 'block', 'stage')


@dataclass(frozen=True)
class Backbone:
    """A row: a plain net and where attention goes in it.

    Args:
        build: called with timm's model arguments, gives the plain net.
        title: its name in a sentence.
        cfg: the fields of its timm pretrained cfg.
        timm: the name of the same net in timm; without one, the plain net is registered here too.
        stages: the stages that an attention of site 'stage' closes.
        sites: the sites it offers.
        overrides: for an attention's name, options that replace the defaults of its row.
        features: timm's feature_cfg, how features_only takes its features.
    """

    build: Callable[..., nn.Module]
    title: str
    cfg: Mapping[str, Any]
    timm: str | None = None
    stages: tuple[str, ...] = ()
    sites: tuple[str, ...] = SITES
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)


def build_timm(name: str, **kwargs: Any) -> nn.Module:
    """timm's own net of that name, without weights."""
    net: nn.Module = model_entrypoint(name)(pretrained=False, **kwargs)
    return net


_IMAGENET = dict(
    num_classes=1000,
    input_size=(3, 224, 224),
    pool_size=(7, 7),
    crop_pct=0.875,
    interpolation='bilinear',
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
    license='apache-2.0',
)
_CIFAR = dict(
    num_classes=10,
    input_size=(3, 32, 32),
    pool_size=(8, 8),
    crop_pct=1.0,
    interpolation='bilinear',
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    first_conv='conv1',
    classifier='fc',
    license='apache-2.0',
)


def _resnet(name: str, title: str) -> Backbone:
    return Backbone(
        partial(build_timm, name),
        title,
        dict(_IMAGENET, first_conv='conv1', classifier='fc'),
        timm=name,
        stages=('layer1', 'layer2', 'layer3'),
        overrides={'simam': {'e_lambda': 0.1}},
    )


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        'resnet18': _resnet('resnet18', 'ResNet-18'),
        'resnet34': _resnet('resnet34', 'ResNet-34'),
        'resnet50': _resnet('resnet50', 'ResNet-50'),
        'resnet101': _resnet('resnet101', 'ResNet-101'),
        'resnet152': _resnet('resnet152', 'ResNet-152'),
        'resnext50_32x4d': _resnet('resnext50_32x4d', 'ResNeXt-50 (32x4d)'),
        'mobilenetv2': Backbone(
            partial(build_timm, 'mobilenetv2_100'),
            'MobileNetV2',
            dict(_IMAGENET, first_conv='conv_stem', classifier='classifier'),
            timm='mobilenetv2_100',
            stages=tuple(f'blocks.{i}' for i in range(6)),
            overrides={'simam': {'e_lambda': 0.1}, 'gc': {'min_hidden': 1}},
            features=dict(feature_cls=GetterFeatures),
        ),
        'cifar_resnet20': Backbone(
            partial(CifarResNet, depths=(3, 3, 3)),
            'ResNet-20 for 32x32 images',
            _CIFAR,
            stages=('layer1', 'layer2'),
            features=dict(out_indices=(0, 1, 2, 3)),
        ),
    }
)

__all__ = ['BACKBONES', 'Backbone', 'CifarResNet', 'build_timm']
