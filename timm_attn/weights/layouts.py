"""The layouts of state dicts: what the keys of the authors' repositories and of torchvision become in ours."""

import re
from collections.abc import Callable, Iterator

# timm's place of the i-th block of torchvision's MobileNetV2, features.{i}
_MOBILENETV2_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
_MOBILENETV2_BLOCKS = {
    i: f'blocks.{stage}.{j}'
    for i, (stage, j) in enumerate(((s, j) for s, depth in enumerate(_MOBILENETV2_DEPTHS) for j in range(depth)), 1)
}


def _mobilenetv2_rules() -> Iterator[tuple[str, str]]:
    """Rules for torchvision's layout of MobileNetV2, with a module after the depthwise convolution or the block."""
    yield r'^features\.0\.0\.', 'conv_stem.'
    yield r'^features\.0\.1\.', 'bn1.'
    yield r'^features\.18\.0\.', 'conv_head.'
    yield r'^features\.18\.1\.', 'bn2.'
    yield r'^classifier\.[01]\.', 'classifier.'
    for i, block in _MOBILENETV2_BLOCKS.items():
        # (index in the block's Sequential, timm's convolution, timm's norm); SimAM shifts the depthwise norm by one
        at = rf'^features\.{i}\.conv\.'
        expand = 0 if i == 1 else 1
        if expand:
            yield at + r'0\.0\.', f'{block}.conv_pw.'
            yield at + r'0\.1\.', f'{block}.bn1.'
        yield at + rf'{expand}\.0\.', f'{block}.conv_dw.'
        yield at + rf'{expand}\.[12]\.', f'{block}.bn{1 + expand}.'
        yield at + rf'{expand + 1}\.', f'{block}.conv_pw{"l" if expand else ""}.'
        yield at + rf'{expand + 2}\.', f'{block}.bn{2 + expand}.'
        yield at + rf'{expand + 3}\.', f'{block}.@.'


# timm's place of the i-th block of the SimAM repository's MobileNetV2 for CIFAR, layers.{i}
_CIFAR_MOBILENETV2_RULES = tuple((rf'^layers\.{i - 1}\.', f'{block}.') for i, block in _MOBILENETV2_BLOCKS.items())

# A pattern and its replacement, where '@' stands for the attention of a block or a stage, whatever its slot is called.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
Rules = tuple[Rule, ...]

# (what a key of the layout looks like, its rules). The rules of every layout that has such a key are applied in turn.
LAYOUTS: tuple[tuple[str, Rules], ...] = (
    # SimAM repository: conv = Sequential(conv, attention), or the last norm = Sequential(norm, attention)
    (r'\.(conv|bn)[23]\.0\.', ((r'\.(conv|bn)([23])\.0\.', r'.\1\2.'), (r'\.(conv|bn)[23]\.1\.', '.@.'))),
    # its nets for CIFAR: ResNets and PreResNets, wide ResNets, MobileNetV2
    (r'^linear\.', ((r'\.shortcut\.', '.downsample.'), (r'^bn\.', 'norm.'), (r'^linear\.', 'fc.'))),
    (
        r'^block1\.layer\.',
        ((r'^bn1\.', 'norm.'), (r'^block(\d)\.layer\.', r'layer\1.'), (r'\.convShortcut\.', '.downsample.0.')),
    ),
    (
        r'^layers\.0\.',
        (
            (r'^conv1\.', 'conv_stem.'),
            (r'^conv2\.', 'conv_head.'),
            (r'^fc\.', 'classifier.'),
            *_CIFAR_MOBILENETV2_RULES,
            (r'^(blocks.*)\.conv1\.', r'\1.conv_pw.'),
            (r'^(blocks.*)\.conv2\.', r'\1.conv_dw.'),
            (r'^(blocks.*)\.conv3\.', r'\1.conv_pwl.'),
        ),
    ),
    # ECANet and attention-module: the attention is a child of the block, BAM of the net
    (r'\.(eca|cbam)\.|^bam1\.', ((r'\.(eca|cbam)\.', '.@.'), (r'^bam(\d)\.', r'layer\1.@.'))),
    (r'^features\.0\.0\.', tuple(_mobilenetv2_rules())),
    # inside the layers
    (r'\.fc\.0\.', ((r'@\.fc\.0\.', '@.fc1.'), (r'@\.fc\.2\.', '@.fc2.'))),
    (
        r'\.ChannelGate\.',
        (
            (r'@\.ChannelGate\.mlp\.1\.', '@.channel.fc1.'),
            (r'@\.ChannelGate\.mlp\.3\.', '@.channel.fc2.'),
            (r'@\.SpatialGate\.spatial\.', '@.spatial.'),
        ),
    ),
    (
        r'\.channel_att\.',
        (
            (r'@\.channel_att\.gate_c\.gate_c_fc_0\.', '@.channel.fc1.'),
            (r'@\.channel_att\.gate_c\.gate_c_bn_1\.', '@.channel.bn1.'),
            (r'@\.channel_att\.gate_c\.gate_c_fc_final\.', '@.channel.fc2.'),
            (r'@\.spatial_att\.gate_s\.gate_s_(conv|bn)_reduce0\.', r'@.spatial.\g<1>0.'),
            (r'@\.spatial_att\.gate_s\.gate_s_(conv|bn)_di_0\.', r'@.spatial.\g<1>1.'),
            (r'@\.spatial_att\.gate_s\.gate_s_(conv|bn)_di_1\.', r'@.spatial.\g<1>2.'),
            (r'@\.spatial_att\.gate_s\.gate_s_conv_final\.', '@.spatial.conv3.'),
        ),
    ),
)
