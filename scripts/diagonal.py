"""Print one name of every backbone, the attentions in turn: the sample of the zoo that CI runs timm's tests on."""

from timm_attn import ATTENTION, BACKBONES, zoo


def diagonal() -> list[str]:
    """Every row of BACKBONES once, every row of ATTENTION at least once."""
    sample = []
    for i, backbone in enumerate(BACKBONES):
        offered = [name for key in ATTENTION if (name := f'{backbone}_{key}') in zoo.names()]
        sample.append(offered[i % len(offered)])
    missing = [key for key in ATTENTION if not any(name.endswith(f'_{key}') for name in sample)]
    assert not missing, f'no name of the sample has {missing}'
    return sample


if __name__ == '__main__':
    print(*diagonal(), sep='\n')
