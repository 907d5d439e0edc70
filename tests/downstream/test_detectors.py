"""The detectors have the papers' parameters, take any backbone of two strides, and freeze what mmdetection does."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.downstream import SMALL, parameters
from timm_attn.downstream import faster_rcnn, mask_rcnn

COUNTS: list[tuple[Any, str, int]] = [
    (faster_rcnn, 'resnet50', 41_757_156),
    (faster_rcnn, 'resnet50_simam', 41_757_156),
    (faster_rcnn, 'resnet50_se', 41_757_156 + 2_514_944),  # SimAM Table 4: 2.5 M
    (faster_rcnn, 'resnet101', 60_749_284),
    (faster_rcnn, 'resnet101_simam', 60_749_284),
    (faster_rcnn, 'resnet101_se', 60_749_284 + 4_743_168),  # 4.7 M
    (faster_rcnn, 'resnet101_bam', 60_749_284 + 360_761),
    (mask_rcnn, 'resnet50_simam', 44_400_693),
    (mask_rcnn, 'resnet101', 63_392_821),
]


def on_meta(make: Any, name: str, classes: int, **options: Any) -> Any:
    with torch.device('meta'):
        return make(name, classes, **options)


@pytest.mark.parametrize(('make', 'name', 'count'), COUNTS, ids=lambda v: getattr(v, '__name__', str(v)))
def test_parameters_with_the_80_classes_of_coco(make: Any, name: str, count: int) -> None:
    assert parameters(on_meta(make, name, 81)) == count


BACKBONES: list[tuple[str, dict[str, Any], list[int]]] = [
    ('resnet18_bam', {}, [4, 8, 16, 32, 64]),
    ('cifar_resnet20_simam', {}, [4, 8]),
    ('squeezenet1_1_bam', {}, [4, 8, 16, 32]),
    ('mobilenetv2_eca', {}, [4, 8, 16, 32, 64]),
    ('convnext_atto', {}, [4, 8, 16, 32, 64]),
    ('with_attention', dict(backbone='convnext_atto', attention='eca'), [4, 8, 16, 32, 64]),
    ('resnet18_simam', dict(in_chans=1), [4, 8, 16, 32, 64]),
    ('resnet18_se', dict(attn_kwargs=dict(reduction=4)), [4, 8, 16, 32, 64]),
]


@pytest.mark.parametrize(('name', 'kwargs', 'strides'), BACKBONES, ids=lambda v: str(v))
def test_backbones(name: str, kwargs: dict[str, Any], strides: list[int]) -> None:
    model: Any = faster_rcnn(name, 4, backbone_kwargs=kwargs, **SMALL)
    channels = kwargs.get('in_chans', 3)
    assert model.backbone.strides == strides and len(model.transform.image_mean) == channels
    assert [size for (size,) in model.rpn.anchor_generator.sizes] == [4 * stride for stride in strides]
    images = [torch.rand(channels, 40, 32), torch.rand(channels, 32, 48)]
    target = dict(boxes=torch.tensor([[2.0, 2, 20, 20]]), labels=torch.tensor([3]))
    losses = model(images, [target, target])
    assert len(losses) == 4 and all(value.isfinite() for value in losses.values())
    with torch.inference_mode():
        outputs = model.eval()(images)
    assert [output.keys() for output in outputs] == [{'boxes', 'labels', 'scores'}] * 2


REFUSED: list[tuple[dict[str, Any], str]] = [
    (dict(backbone='vit_tiny_patch16_224'), r"at least two strides, but 'vit_tiny_patch16_224' has 3 of \[16, 16, 16]"),
    (dict(backbone='squeezenet1_1', out_indices=[1, 2, 3, 4]), r'from 0 to 2, as .* \(strides \[4, 8, 16]\), but got'),
    (dict(backbone='cifar_resnet20_se', out_indices=[1, 2, 3, 4]), r'from 0 to 3, as .*\[1, 1, 2, 4]\), but got'),
    (dict(backbone='cifar_resnet20_se', out_indices=[0, 1]), r'have the strides \[1, 1], but each level needs its own'),
    (dict(backbone='resnet18', out_indices=[]), r'rising numbers from 0 to 4'),
    (dict(backbone='resnet18', num_classes=1), 'num_classes must be at least 2, .* but got 1'),
    (dict(backbone='resnet18', box_loss='l2'), "box_loss must be one of smooth_l1, l1, but got 'l2'"),
    (dict(backbone='resnet18', trainable_stages=6), 'trainable_stages must be from 0 to 5 for this net, but got 6'),
]


@pytest.mark.parametrize(('options', 'message'), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_what_cannot_be_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        faster_rcnn(**{'num_classes': 4, **options})


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


@pytest.mark.parametrize('name', ['resnet18_bam', 'resnet18_cbam', 'mobilenetv2_simam', 'squeezenet1_1_bam'])
def test_freezing_as_mmdetection_does_it(name: str) -> None:
    free, model = (faster_rcnn(name, 4, trainable_stages=t, **SMALL) for t in (None, 2))
    body: Any = model.backbone.features  # type: ignore[union-attr]
    assert all(p.requires_grad for p in free.parameters()) and all(m.training for m in free.modules())
    for mode in (False, True):
        model.train(mode)
    assert norms(body) and not any(norm.training for norm in norms(body))
    trained = {name for name, p in body.named_parameters() if p.requires_grad}
    frozen = {name for name, p in body.named_parameters() if not p.requires_grad}
    stages = body.body.feature_info.module_name()
    last, before = (stage.replace('.', '_') for stage in stages[-1:-3:-1])
    for name in frozen:
        assert f'{last}.' not in name.replace('_', '.') and f'body.{before}' not in name
    of_norms = {f'{path}.weight' for path, m in body.named_modules() if isinstance(m, _BatchNorm)}
    assert trained and frozen and not of_norms or of_norms & trained  # the affine of later norms is trained
    statistics = [norm.running_mean.clone() for norm in norms(body)]
    model([torch.rand(3, 32, 32)], [dict(boxes=torch.tensor([[2.0, 2, 20, 20]]), labels=torch.tensor([3]))])
    assert all(torch.equal(then, norm.running_mean) for then, norm in zip(statistics, norms(body), strict=True))


def test_3_of_5_stages_are_frozen_stages_1() -> None:
    body: Any = on_meta(faster_rcnn, 'resnet50_se', 4, trainable_stages=3).backbone.features.body
    frozen = {name.partition('.')[0] for name, p in body.named_parameters() if not p.requires_grad}
    trained = {name.partition('.')[0] for name, p in body.named_parameters() if p.requires_grad}
    assert frozen == {'conv1', 'bn1', 'layer1'} and trained == {'layer2', 'layer3', 'layer4'}


def test_pretrained_backbones_by_tag() -> None:
    plain: Any = faster_rcnn('cifar_resnet20_simam.fmnist', 4, pretrained_backbone=True, **SMALL)
    folded: Any = faster_rcnn('cifar_resnet20_eca.from_fmnist', 4, pretrained_backbone=True, **SMALL)
    assert plain.transform.image_mean == folded.transform.image_mean == [0.286] * 3
    weights = [model.backbone.features.body.conv1.weight for model in (plain, folded)]
    assert all(weight.std() > 0.1 for weight in weights)
    assert plain.settings['mean'] == [0.286] * 3


@pytest.mark.parametrize('make', [faster_rcnn, mask_rcnn])
def test_boxes_are_exact_under_autocast(make: Any) -> None:
    """In bfloat16 a coordinate beyond 16 is a multiple of 1/8."""
    model = make('cifar_resnet20_simam', 4, box_score_thresh=0.0, **SMALL).eval()
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        (output,) = model([torch.rand(3, 32, 32)])
    assert all(value.dtype == torch.float32 for key, value in output.items() if key != 'labels')
    inside = output['boxes'][(output['boxes'] > 17) & (output['boxes'] < 31)]
    assert len(inside) > 3 and (inside % 0.125 != 0).any()
