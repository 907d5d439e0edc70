"""pytorchcv's nets that are ours: the rules for the keys of each, by our name.

A rule is bound to the name for which equal logits were shown. Keys do not tell where a bottleneck has its stride, nor
which activations a pre-activation net shares, so that pytorchcv's other nets are refused, whatever their keys.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from timm_attn.weights.layouts import Rules


def _block(match: re.Match[str]) -> str:
    """Ours of stage1.unit1: pytorchcv counts blocks from 1."""
    return f'layer{match[1]}.{int(match[2]) - 1}.'


def _bam(match: re.Match[str]) -> str:
    """Ours of a BAM, which opens the stage that follows ours."""
    return f'layer{int(match[1]) - 1}.@.'


_BLOCK: Rules = ((r'^features\.stage(\d)\.unit(\d+)\.', _block),)
_CONVOLUTIONS: Rules = ((r'\.body\.conv(\d)\.(conv|bn)\.', r'.\2\1.'), (r'^output\.', 'fc.'))
_RESNET: Rules = (
    (r'^features\.init_block\.(?:conv\.)?(conv|bn)\.', r'\g<1>1.'),
    (r'^features\.stage(\d)\.unit1\.bam\.', _bam),
    *_BLOCK,
    (r'\.res_unit\.', '.'),
    *_CONVOLUTIONS,
    (r'\.identity_conv\.conv\.', '.downsample.0.'),
    (r'\.identity_conv\.bn\.', '.downsample.1.'),
)
_SE: Rules = ((r'\.se\.conv([12])\.', r'.@.fc\1.'),)
_CBAM: Rules = ((r'\.cbam\.ch_gate\.mlp\.', '.@.channel.'), (r'\.cbam\.sp_gate\.conv\.', '.@.spatial.'))
_BAM: Rules = (
    (r'@\.ch_att\.init_fc\.fc\.', '@.channel.fc1.'),
    (r'@\.ch_att\.init_fc\.bn\.', '@.channel.bn1.'),
    (r'@\.ch_att\.final_fc\.', '@.channel.fc2.'),
    (r'@\.sp_att\.init_conv\.(conv|bn)\.', r'@.spatial.\g<1>0.'),
    (r'@\.sp_att\.dil_convs\.conv(\d)\.(conv|bn)\.', r'@.spatial.\2\1.'),
    (r'@\.sp_att\.final_conv\.', '@.spatial.conv3.'),
)
_WIDE_RESNET: Rules = (
    (r'^features\.init_block\.', 'conv1.'),
    (r'^features\.post_activ\.bn\.', 'norm.'),
    *_BLOCK,
    *_CONVOLUTIONS,
    (r'\.identity_conv\.', '.downsample.0.'),
)
_DENSENET: Rules = (
    (r'^features\.init_block\.', 'features.conv0.'),
    (r'^features\.post_activ\.bn\.', 'features.norm5.'),
    (
        r'^features\.stage\d\.trans(\d)\.conv\.(conv|bn)\.',
        lambda match: f'features.transition{int(match[1]) - 1}.{"norm" if match[2] == "bn" else "conv"}.',
    ),
    (r'^features\.stage(\d)\.unit(\d+)\.', r'features.denseblock\1.denselayer\2.'),
    (r'\.conv(\d)\.bn\.', r'.norm\1.'),
    (r'\.conv(\d)\.conv\.', r'.conv\1.'),
    (r'^output\.', 'classifier.'),
)
_SQUEEZENET: Rules = (
    (r'^features\.init_block\.conv\.', 'stem.conv.'),
    *_BLOCK,
    (r'\.(squeeze|expand1x1|expand3x3)\.conv\.', r'.\1.'),
    (r'^output\.final_conv\.', 'classifier.'),
)


class Net(NamedTuple):
    """A net of pytorchcv by its name there (without the data set), and the rules for its keys.

    Args:
        twin: a published net with the same keys and shapes that computes something else, if there is one.
    """

    name: str
    rules: Rules
    twin: str = ''


NETS: Mapping[str, Net] = MappingProxyType(
    {
        'resnet50_cbam': Net('cbam_resnet50', (*_RESNET, *_CBAM)),
        'resnet50_bam_mul': Net('bam_resnet50', (*_RESNET, *_BAM)),
        'resnet18_se': Net('seresnet18', (*_RESNET, *_SE)),
        'resnet50_se': Net('seresnet50b', (*_RESNET, *_SE), twin='seresnet50'),
        'resnet101_se': Net('seresnet101b', (*_RESNET, *_SE), twin='seresnet101'),
        'resnext50_32x4d_se': Net('seresnext50_32x4d', (*_RESNET, *_SE)),
        'squeezenet1_1': Net('squeezenet_v1_1', _SQUEEZENET, twin='squeezeresnet_v1_1'),
        'cifar_resnet20': Net('resnet20', _RESNET),
        'cifar_resnet56': Net('resnet56', _RESNET),
        'cifar_resnet20_se': Net('seresnet20', (*_RESNET, *_SE)),
        'cifar_resnet56_se': Net('seresnet56', (*_RESNET, *_SE)),
        'cifar_wrn28_10': Net('wrn28_10', _WIDE_RESNET),
        'cifar_densenet100_12': Net('densenet100_k12_bc', _DENSENET),
    }
)
_KEY = re.compile(r'features\.(init_block|stage\d\.unit\d+)\.')


def is_of_pytorchcv(keys: Iterable[str]) -> bool:
    """Whether keys of a state dict are in pytorchcv's layout."""
    return any(_KEY.match(key) for key in keys)
