"""The table of places: where an attention goes in timm's blocks that have no explicit class in blocks.py.

A row is a block class, named `module.Class` within timm.models, so that a class that a version of timm lacks does no
harm. A path of a row is that of a child of the block; it may be an empty slot (None or nn.Identity), which is filled.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from timm_attn.attach.blocks import SLOTTED


class Place(NamedTuple):
    """The places of a block class.

    Args:
        conv: the spatial convolution that an attention of site 'conv' follows; the first of them that the block has.
        block: what an attention of site 'block' fills or follows: the slot that the block's authors made for one, else
            the end of its residual branch. None where blocks.py has a slot of its own.
        own: the children that hold the block's own attention, if it was built with one.
    """

    conv: tuple[str, ...] = ()
    block: str | None = None
    own: tuple[str, ...] = ()


_SE = ('se',)
_ATTN = ('attn', 'attn_last')
PLACES: Mapping[str, Place] = {
    '_efficientnet_blocks.CondConvResidual': Place((), 'bn3', _SE),
    '_efficientnet_blocks.ConvBnAct': Place(('conv',), 'aa'),
    '_efficientnet_blocks.DepthwiseSeparableConv': Place(own=_SE),
    '_efficientnet_blocks.EdgeResidual': Place(('conv_exp',), 'bn2', _SE),
    '_efficientnet_blocks.InvertedResidual': Place(own=_SE),
    '_efficientnet_blocks.MobileAttention': Place((), 'layer_scale'),
    '_efficientnet_blocks.UniversalInvertedResidual': Place(
        ('dw_mid.conv', 'dw_start.conv', 'dw_end.conv'), 'layer_scale', _SE
    ),
    'byobnet.BasicBlock': Place(('conv2_kxk.conv',), 'attn_last', _ATTN),
    'byobnet.BottleneckBlock': Place(('conv2_kxk.conv',), 'attn_last', _ATTN),
    'byobnet.DarkBlock': Place(('conv2_kxk.conv',), 'attn_last', _ATTN),
    'byobnet.EdgeBlock': Place(('conv1_kxk.conv',), 'attn_last', _ATTN),
    'byobnet.MobileOneBlock': Place((), 'attn', _ATTN),
    'byobnet.RepVggBlock': Place((), 'attn', _ATTN),
    'byobnet.SelfAttnBlock': Place(('conv2_kxk.conv',), 'drop_path'),
    'convnext.ConvNeXtBlock': Place(('conv_dw',), 'drop_path'),
    'cspnet.BottleneckBlock': Place(('conv2.conv',), 'attn3', ('attn2', 'attn3')),
    'cspnet.DarkBlock': Place(('conv2.conv',), 'drop_path', ('attn',)),
    'cspnet.EdgeBlock': Place(('conv1.conv',), 'drop_path', ('attn',)),
    'cspnext.CspNextBlock': Place((), 'conv2'),
    'dla.DlaBasic': Place(('conv2',), 'bn2'),
    'dla.DlaBottle2neck': Place((), 'bn3'),
    'dla.DlaBottleneck': Place(('conv2',), 'bn3'),
    'edgenext.ConvBlock': Place(('conv_dw',), 'drop_path'),
    'fasternet.MLPBlock': Place((), 'drop_path'),
    'fastvit.RepMixerBlock': Place((), 'layer_scale'),
    'ghostnet.GhostBottleneck': Place(('conv_dw',), 'ghost2', _SE),
    'ghostnet.GhostBottleneckV3': Place(('conv_dw',), 'ghost2', _SE),
    'hgnet.HighPerfGpuBlock': Place((), 'aggregation', ('aggregation.2',)),
    'inception_next.MetaNeXtBlock': Place(('token_mixer',), 'drop_path'),
    'lcnetv2.RepDepthwiseSeparable': Place((), 'pw_conv', _SE),
    'mambaout.GatedConvBlock': Place(('conv',), 'drop_path'),
    'maxxvit.ConvNeXtBlock': Place(('conv_dw',), 'drop_path'),
    'maxxvit.MbConvBlock': Place(('conv2_kxk',), 'drop_path', ('se_early', 'se')),
    'metaformer.MetaFormerBlock': Place(('token_mixer.dwconv',), 'layer_scale2'),
    'nfnet.NormFreeBlock': Place(('conv2',), 'drop_path', _ATTN),  # its slots multiply by attn_gain
    'rdnet.DenseBlock': Place((), 'drop_path'),
    'regnet.Bottleneck': Place(('conv2.conv',), 'se', _SE),
    'regnet.PreBottleneck': Place(('conv2',), 'se', _SE),
    'repghost.RepGhostBottleneck': Place(('conv_dw',), 'ghost2', _SE),
    'repvit.RepViTBlock': Place((), 'se', _SE),
    'res2net.Bottle2neck': Place((), 'se', _SE),
    'resnest.ResNestBottleneck': Place((), 'bn3'),
    'resnet.BasicBlock': Place(own=_SE),
    'resnet.Bottleneck': Place(own=_SE),
    'resnetv2.Bottleneck': Place(('conv2',), 'drop_path'),
    'resnetv2.PreActBasic': Place(('conv2',), 'drop_path'),
    'resnetv2.PreActBottleneck': Place(('conv2',), 'drop_path'),
    'rexnet.LinearBottleneck': Place(('conv_dw.conv',), 'conv_pwl', _SE),
    'senet.SEBottleneck': Place(('conv2',), 'se_module', ('se_module',)),
    'senet.SEResNeXtBottleneck': Place(('conv2',), 'se_module', ('se_module',)),
    'senet.SEResNetBlock': Place(('conv2',), 'se_module', ('se_module',)),
    'senet.SEResNetBottleneck': Place(('conv2',), 'se_module', ('se_module',)),
    'sknet.SelectiveKernelBasic': Place((), 'se', _SE),
    'sknet.SelectiveKernelBottleneck': Place((), 'se', _SE),
    'starnet.Block': Place(('dwconv.conv',), 'drop_path'),
    'tiny_vit.MBConv': Place(('conv2.conv',), 'drop_path'),
    'tresnet.BasicBlock': Place(('conv2.conv',), 'se', _SE),
    'tresnet.Bottleneck': Place(('conv2.conv',), 'se', _SE),
    'vovnet.OsaBlock': Place((), 'attn', ('attn',)),
    'xception_aligned.PreXceptionModule': Place((), 'stack.conv3'),
    'xception_aligned.XceptionModule': Place((), 'stack.conv3'),
}
_PLAIN = {explicit: plain for plain, explicit in SLOTTED.items()}


def find_place(block: nn.Module) -> Place | None:
    """The row of a block's class, None without one; a subclass may compute something else and has its own row."""
    cls = _PLAIN.get(type(block), type(block))
    package, _, module = cls.__module__.rpartition('.')
    return PLACES.get(f'{module}.{cls.__name__}') if package == 'timm.models' else None
