"""SSD300, StairNet, UPerNet and SRResNet: structure, outputs, learning, and what they refuse. Counts: tests/paper."""

import pytest
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import nn

from timm_attn.attention import ATTENTION, BAM, attention_layers
from timm_attn.downstream.srresnet import ResidualBlock, srresnet
from timm_attn.downstream.ssd import BOXES, SIZES, ssd300
from timm_attn.downstream.stairnet import StairBackbone, stairnet300
from timm_attn.downstream.upernet import UPerNetDecoder, upernet


@pytest.fixture(scope='module')
def stairnet() -> nn.Module:
    torch.manual_seed(0)
    return stairnet300(4, 'bam')


def test_a_stairnets_maps_have_the_sizes_of_ssd_and_bam_ends_each(stairnet: nn.Module) -> None:
    with torch.no_grad():
        maps = stairnet.eval().backbone(torch.rand(1, 3, 300, 300))  # type: ignore[operator]
    assert [tuple(m.shape) for m in maps.values()] == [(1, 256, size, size) for size in SIZES]
    layers = attention_layers(stairnet)
    assert list(layers) == [f'backbone.attention.{i}' for i in range(6)]
    assert all(isinstance(layer, BAM) for layer in layers.values())


def test_a_smaller_map_reaches_the_larger_ones_and_not_the_other_way() -> None:
    """A StairBackbone over given maps, of which one changes."""

    class Maps(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {str(i): x[:, :channels, :size, :size] for i, (channels, size) in enumerate(_MAPS)}

    torch.manual_seed(0)
    stairs = StairBackbone(Maps()).eval()
    x = torch.rand(1, 1024, 38, 38)
    maps, changed = stairs(x), None
    hook = stairs.steps[2].lateral.register_forward_hook(lambda m, args, out: out + 1)  # type: ignore[union-attr]
    changed = stairs(x)
    hook.remove()
    same = [torch.equal(a, b) for a, b in zip(maps.values(), changed.values(), strict=True)]
    assert same == [False, False, False, True, True, True]


_MAPS = list(zip((512, 1024, 512, 256, 256, 256), SIZES, strict=True))


def test_a_stairnet_trains_and_detects(stairnet: nn.Module) -> None:
    picture = torch.rand(3, 120, 160)
    target = dict(boxes=torch.tensor([[10.0, 10, 90, 100]]), labels=torch.tensor([3]))
    losses = stairnet.train()([picture], [target])  # the norms of the top map see one value a channel
    assert set(losses) == {'bbox_regression', 'classification'}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stairnet.parameters())
    with torch.no_grad():
        found = stairnet.eval()([picture])[0]
    boxes = found['boxes']
    assert len(boxes) and (boxes >= 0).all() and (boxes <= torch.tensor([160, 120, 160, 120]) + 0.01).all()
    assert {int(label) for label in found['labels']} <= {1, 2, 3}


def test_ssd_has_the_boxes_of_the_papers_counts() -> None:
    with torch.device('meta'):
        model = ssd300(21)
    assert tuple(model.anchor_generator.num_anchors_per_location()) == BOXES == (6, 6, 6, 6, 4, 4)
    with pytest.raises(ValueError, match='the classes are 1 to 20'):
        model([torch.rand(3, 32, 32)], [dict(boxes=torch.tensor([[1.0, 1, 9, 9]]), labels=torch.tensor([21]))])


@pytest.mark.parametrize('backbone', ['resnet18_bam', 'cifar_resnet20_simam', 'mobilenetv2_100'])
def test_upernets_logits_have_the_size_of_the_picture(backbone: str) -> None:
    torch.manual_seed(0)
    model = upernet(backbone, 5, width=16)
    x = torch.rand(2, 3, 65, 90)
    logits = model(x)
    assert logits.shape == (2, 5, 65, 90)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert model(x, full_size=False).shape[2:] == next(iter(model.backbone(x).values())).shape[2:]


def test_every_level_of_upernet_counts() -> None:
    torch.manual_seed(0)
    decoder = UPerNetDecoder([8, 12, 16], 3, width=4).eval()
    maps = [torch.rand(1, c, s, s) for c, s in ((8, 16), (12, 8), (16, 4))]
    plain = decoder(maps)
    for i in range(3):
        changed = [m + 1 if k == i else m for k, m in enumerate(maps)]
        assert not torch.allclose(decoder(changed), plain, atol=1e-3), i


def test_upernet_takes_the_statistics_of_its_pictures() -> None:
    own, given = (upernet('resnet18', 5, width=16, **options) for options in ({}, dict(image_mean=[0.5] * 3)))
    assert own.normalize.mean == list(IMAGENET_DEFAULT_MEAN) and own.normalize.std == given.normalize.std
    assert given.normalize.mean == given.settings['mean'] == [0.5] * 3


@pytest.mark.parametrize('attention', [None, *ATTENTION])
def test_srresnet_is_four_times_as_large_with_any_attention(attention: str | None) -> None:
    model = srresnet(attention, every=1, blocks=2, width=16)
    picture = model(torch.rand(1, 3, 9, 13))
    assert picture.shape == (1, 3, 36, 52)
    assert len(attention_layers(model)) == (2 if attention else 0)


def test_attention_stands_behind_every_fourth_block() -> None:
    kinds = [type(m) for m in srresnet('bam').body]
    assert kinds == [ResidualBlock] * 4 + [BAM] + [ResidualBlock] * 4 + [BAM] + [ResidualBlock] * 4 + [BAM] + [
        ResidualBlock
    ] * 4 + [BAM]
    assert len(attention_layers(srresnet('bam', every=5, blocks=12, width=8))) == 2


def test_with_a_bicubic_skip_it_starts_as_the_bicubic_enlargement() -> None:
    x = torch.rand(2, 3, 8, 11)
    model = srresnet('bam', blocks=4, width=16, bicubic_skip=True)
    expected = F.interpolate(x, scale_factor=4, mode='bicubic', antialias=True)
    assert torch.equal(model(x), expected)
    model(x).square().sum().backward()
    assert model.tail.weight.grad is not None and model.tail.weight.grad.abs().max() > 0


def test_its_maps_keep_their_scale_from_layer_to_layer() -> None:
    torch.manual_seed(0)
    model = srresnet(blocks=4, width=32).eval()
    assert 0.3 < float(model.upsample(model.head(2 * torch.rand(1, 3, 16, 16) - 1)).detach().std()) < 3


@pytest.mark.parametrize('make', [lambda: srresnet('bamm'), lambda: stairnet300(21, 'bamm')])
def test_an_attention_that_is_none_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="Unknown attention 'bamm': choose from se, cbam, eca, .*bamc"):
        make()


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: ssd300(1), 'num_classes must be at least 2, the background and a class, but got 1'),
        (lambda: stairnet300(0), 'num_classes must be at least 2, the background and a class, but got 0'),
        (lambda: srresnet(every=0), 'every must be a positive integer, but got 0'),
        (lambda: srresnet(blocks=-1), 'blocks must be a positive integer, but got -1'),
        (lambda: upernet('resnet18', 0), 'num_classes must be a positive integer, but got 0'),
        (lambda: upernet('vit_tiny_patch16_224', 3), 'at least two strides'),
    ],
)
def test_numbers_that_are_not_valid(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_segmentation_models_pytorch_takes_our_names() -> None:
    """The example of docs/downstream_bam.md."""
    smp = pytest.importorskip('segmentation_models_pytorch')
    model = smp.Unet('tu-resnet50_bam', encoder_weights=None, classes=5)
    assert len(attention_layers(model)) == 3
    assert model(torch.rand(2, 3, 64, 96)).shape == (2, 5, 64, 96)
