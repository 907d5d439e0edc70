"""The backbones and their table. A backbone that timm has is a row in BACKBONES; another is a file here and its row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from timm_attn.backbones.cifar_mobilenetv2 import CifarMobileNetV2
from timm_attn.backbones.cifar_preresnet import CifarPreBasicBlock, CifarPreBottleneck
from timm_attn.backbones.cifar_resnet import CifarBasicBlock, CifarBottleneck, CifarResNet
from timm_attn.backbones.features import GetterFeatures
from timm_attn.backbones.squeezenet import SqueezeNet
from timm_attn.backbones.timm_nets import build_timm, build_timm_densenet_for_cifar, build_timm_for_cifar

SITES = ('conv', 'block', 'stage')
Widths = tuple[int, int, int, int]  # output channels of the stem and three stages


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


_IMAGENET = dict(
    num_classes=1000,
    input_size=(3, 224, 224),
    pool_size=(7, 7),
    crop_pct=0.875,
    interpolation='bilinear',
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
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
)


_SIMAM_ON_IMAGENET = {'simam': {'e_lambda': 0.1}}  # SimAM Section 4.2; the layer's default is that of CIFAR


def _resnet(name: str, title: str, **kwargs: Any) -> Backbone:
    return Backbone(
        partial(build_timm, name, **kwargs),
        title,
        dict(_IMAGENET, first_conv='conv1', classifier='fc'),
        timm=None if kwargs else name,
        stages=('layer1', 'layer2', 'layer3'),
        overrides=_SIMAM_ON_IMAGENET,
    )


def _cifar(title: str, block: Callable[..., nn.Module], depth: int, widths: Widths, **kwargs: Any) -> Backbone:
    return Backbone(
        partial(CifarResNet, block=block, depth=depth, widths=widths, **kwargs),
        title,
        _CIFAR,
        stages=('layer1', 'layer2'),
        features=dict(out_indices=(0, 1, 2, 3)),
    )


def _cifar_bottleneck(name: str, title: str) -> Backbone:
    return Backbone(
        partial(build_timm_for_cifar, name),
        title,
        dict(_CIFAR, pool_size=(4, 4)),
        stages=('layer1', 'layer2', 'layer3'),
    )


_NARROW, _EXPANDED = (16, 16, 32, 64), (16, 64, 128, 256)
_stride_first = partial(CifarPreBottleneck, stride_first=True)
_wide = partial(CifarPreBasicBlock, shared=True)


def _wide_widths(k: int) -> Widths:
    return (16, 16 * k, 32 * k, 64 * k)


def _resnext(cardinality: int) -> Callable[..., nn.Module]:
    """ResNeXt-29's block of `cardinality` groups of 64 channels in the first stage."""
    return partial(CifarBottleneck, ratio=cardinality * 64 / 256, groups=cardinality, stride_first=True)


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        'resnet18': _resnet('resnet18', 'ResNet-18'),
        'resnet34': _resnet('resnet34', 'ResNet-34'),
        'resnet50': _resnet('resnet50', 'ResNet-50'),
        'resnet101': _resnet('resnet101', 'ResNet-101'),
        'resnet152': _resnet('resnet152', 'ResNet-152'),
        'resnext50_32x4d': _resnet('resnext50_32x4d', 'ResNeXt-50 (32x4d)'),
        # the stem keeps 64 channels (BAM Table 4)
        'wide_resnet18_x1_5': _resnet('resnet18', 'ResNet-18, 1.5 times as wide', channels=(96, 192, 384, 768)),
        'wide_resnet18_x2_0': _resnet('resnet18', 'ResNet-18, twice as wide', channels=(128, 256, 512, 1024)),
        'mobilenetv2': Backbone(
            partial(build_timm, 'mobilenetv2_100'),
            'MobileNetV2',
            dict(_IMAGENET, first_conv='conv_stem', classifier='classifier'),
            timm='mobilenetv2_100',
            stages=tuple(f'blocks.{i}' for i in range(6)),
            overrides=_SIMAM_ON_IMAGENET,
            features=dict(feature_cls=GetterFeatures),
        ),
        'cifar_resnet20': _cifar('ResNet-20 for 32x32 images', CifarBasicBlock, 3, _NARROW),
        'cifar_resnet56': _cifar('ResNet-56 for 32x32 images', CifarBasicBlock, 9, _NARROW),
        'cifar_resnet110': _cifar('ResNet-110 (bottleneck) for 32x32 images', CifarBottleneck, 12, _EXPANDED),
        'cifar_preresnet20': _cifar('PreResNet-20', CifarPreBasicBlock, 3, _NARROW, preact=True),
        'cifar_preresnet56': _cifar('PreResNet-56', CifarPreBasicBlock, 9, _NARROW, preact=True),
        'cifar_preresnet110': _cifar('PreResNet-110 (bottleneck)', CifarPreBottleneck, 12, _EXPANDED, preact=True),
        'cifar_preresnet164': _cifar("PreResNet-164, BAM's PreResNet110", _stride_first, 18, _EXPANDED, preact=True),
        'cifar_wrn28_8': _cifar('WRN-28-8', _wide, 4, _wide_widths(8), preact=True),
        'cifar_wrn28_10': _cifar('WRN-28-10', _wide, 4, _wide_widths(10), preact=True),
        'cifar_wrn40_10': _cifar('WRN-40-10', _wide, 6, _wide_widths(10), preact=True),
        'cifar_resnext29_8x64d': _cifar('ResNeXt-29 (8x64d)', _resnext(8), 3, (64, 256, 512, 1024)),
        'cifar_resnext29_16x64d': _cifar('ResNeXt-29 (16x64d)', _resnext(16), 3, (64, 256, 512, 1024)),
        'cifar_mobilenetv2': Backbone(
            CifarMobileNetV2,
            'MobileNetV2 for 32x32 images',
            dict(_CIFAR, pool_size=(4, 4), first_conv='conv_stem', classifier='classifier'),
            stages=tuple(f'blocks.{i}' for i in range(6)),
            features=dict(feature_cls=GetterFeatures),
        ),
        'cifar_densenet100_12': Backbone(
            partial(build_timm_densenet_for_cifar, 'densenet121', growth_rate=12, block_config=(16, 16, 16)),
            'DenseNet-BC (100 layers, growth 12)',
            dict(_CIFAR, first_conv='features.conv0', classifier='classifier'),
            sites=('stage',),
            features=dict(out_indices=(0, 1, 2, 3), flatten_sequential=True),
        ),
        'squeezenet1_1': Backbone(
            SqueezeNet,
            'SqueezeNet 1.1',
            dict(_IMAGENET, pool_size=(13, 13), first_conv='stem.conv', classifier='classifier'),
            stages=('stem', 'layer1', 'layer2'),
            sites=('stage',),
            features=dict(out_indices=(0, 1, 2)),
        ),
        'cifar_resnet50': _cifar_bottleneck('resnet50', 'ResNet-50 for 32x32 images'),
        'cifar_resnet101': _cifar_bottleneck('resnet101', 'ResNet-101 for 32x32 images'),
    }
)

__all__ = ['BACKBONES', 'Backbone']
