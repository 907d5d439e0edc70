"""Nets that timm has, as they are or adapted to small images."""

from typing import Any

from timm.models import model_entrypoint
from torch import nn

from timm_attn.backbones.features import check_output_stride


def build_timm(name: str, **kwargs: Any) -> nn.Module:
    """timm's own net of that name, without weights."""
    net: nn.Module = model_entrypoint(name)(pretrained=False, **kwargs)
    return net


def build_timm_for_cifar(name: str, output_stride: int | None = None, **kwargs: Any) -> nn.Module:
    """timm's bottleneck ResNet for 32x32 images as the BAM paper counts it (Tables 2, 3 and 10).

    A 3x3 stem without stride, no max-pool, and each stage's stride in its first 1x1 convolution.
    """
    net: Any = build_timm(name, **kwargs)
    net.conv1 = _small_stem(net.conv1)
    nn.init.kaiming_normal_(net.conv1.weight, mode='fan_out', nonlinearity='relu')
    net.maxpool = nn.Identity()
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    for info, reduction in zip(net.feature_info, (1, 1, 2, 4, 8), strict=True):
        info['reduction'] = reduction
    check_output_stride(net, output_stride)
    return net


def build_timm_densenet_for_cifar(name: str, output_stride: int | None = None, **kwargs: Any) -> nn.Module:
    """timm's DenseNet for 32x32 images (Huang et al., 2017, Section 4): a 3x3 stem, no norm and no pool behind it."""
    net: Any = build_timm(name, **kwargs)
    net.features.conv0 = _small_stem(net.features.conv0)
    nn.init.kaiming_normal_(net.features.conv0.weight)
    net.features.norm0 = nn.Identity()
    net.features.pool0 = nn.Identity()
    for info in net.feature_info:
        info['reduction'] = max(1, info['reduction'] // 4)
    check_output_stride(net, output_stride)
    return net


def _small_stem(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution without stride in place of an ImageNet net's first one."""
    dd: dict[str, Any] = {'device': conv.weight.device, 'dtype': conv.weight.dtype}
    return nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False, **dd)
