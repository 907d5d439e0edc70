"""The tasks on VOC, ADE20K and pictures: data, losses, metrics, and the recipes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.miniature import write_ade20k, write_voc
from timm_attn.downstream import scene_parsing, super_resolution, voc_detection
from timm_attn.downstream.data.ade20k import Ade20k
from timm_attn.downstream.data.voc import Voc
from timm_attn.downstream.recipe import RECIPES, load_task_recipe
from timm_attn.downstream.tasks import TASKS, task_of
from timm_attn.paper.compare import printed
from timm_attn.training.processes import ALONE


class Oracle(nn.Module):
    """A detector that finds the objects of a data set."""

    def __init__(self, samples: Voc) -> None:
        super().__init__()
        self.samples = samples

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        targets = [next(t for i, t in self.samples if torch.equal(i, image)) for image in images]
        return [dict(boxes=t['boxes'], labels=t['labels'], scores=torch.ones(len(t['boxes']))) for t in targets]


def test_a_detector_that_finds_all_has_100_percent(tmp_path: Path) -> None:
    samples = Voc(write_voc(tmp_path), '2007_test')
    batches = [tuple(zip(samples[0], samples[1], strict=True)), tuple(zip(samples[2], strict=True))]
    found = voc_detection.evaluate(Oracle(samples), batches, 20, ALONE, torch.no_grad)
    assert len(found) > 1 and set(found.values()) == {100.0}


def test_ssds_changes_keep_boxes_and_labels_together(tmp_path: Path) -> None:
    changed = voc_detection.Augmented(Voc(write_voc(tmp_path), '2007_trainval', training=True), 0.5)
    torch.manual_seed(0)
    sizes = set()
    for index in range(12):
        image, target = changed[index % 4]
        boxes, (height, width) = target['boxes'], image.shape[1:]
        assert len(boxes) == len(target['labels']) > 0 and set(target) == {'boxes', 'labels'}
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        sizes.add((height, width))
    assert len(sizes) > 3


class Labeller(nn.Module):
    """A net whose likeliest class is the red of its picture, of 255."""

    def forward(self, x: Tensor, full_size: bool = True) -> Tensor:
        return F.one_hot((255 * x[:, 0]).round().long(), 150).permute(0, 3, 1, 2).float()


def coded(labels: Tensor) -> Tensor:
    """A picture of Labeller's for a label map."""
    return (labels.clamp(min=0) / 255).expand(3, -1, -1).contiguous()


def test_scene_parsing_counts_pixels_at_the_size_of_the_label_map(tmp_path: Path) -> None:
    samples = Ade20k(write_ade20k(tmp_path), 'validation')
    maps = [samples[i][1] for i in range(2)]
    batches = [(coded(m)[None], [m]) for m in maps]
    found = scene_parsing.evaluate(Labeller(), batches, 150, ALONE, torch.no_grad)
    present = len(torch.cat(maps).unique()) - 1
    assert found == {'accuracy': 100.0, 'mIoU': pytest.approx(100 * present / 150)}


def test_a_batch_is_padded_and_its_padding_does_not_count() -> None:
    torch.manual_seed(0)
    labels = [torch.randint(0, 5, (40, 64)), torch.randint(0, 5, (64, 33))]
    samples = [(torch.rand(3, *one.shape), one) for one in labels]
    images, maps = scene_parsing.collate(samples)
    assert images.shape == (2, 3, 64, 64) and maps == labels
    assert torch.equal(images[0, :, :40], samples[0][0]) and images[0, 0, 40:].unique().tolist() == [
        pytest.approx(0.485)
    ]

    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.rand(2, 5, 16, 16)

        def forward(self, x: Tensor, full_size: bool) -> Tensor:
            assert not full_size
            return self.logits

    model = Known()
    known, total = 0, 0.0
    for k, one in enumerate(labels):
        small = F.pad(one, (0, 64 - one.shape[1], 0, 64 - one.shape[0]), value=-1)[2::4, 2::4]
        losses = -model.logits[k].log_softmax(0).gather(0, small.clamp(min=0)[None])[0]
        known, total = known + int((small >= 0).sum()), total + float(losses[small >= 0].sum())
    assert known == 10 * 16 + 16 * 8  # the centres of 4 x 4 pixels
    assert float(scene_parsing.loss(model, (images, maps))) == pytest.approx(total / known, rel=1e-5)
    nothing = [torch.full_like(one, -1) for one in labels]
    assert float(scene_parsing.loss(model, (images, nothing))) == 0


def test_the_metrics_of_super_resolution_are_means_over_the_pictures() -> None:
    class Nearest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=4)

    generator = torch.Generator().manual_seed(0)
    smalls = [torch.rand(3, 12, 12 + 4 * k, generator=generator).mul(255).round() / 255 for k in range(2)]
    larges = [F.interpolate(s[None], scale_factor=4, mode='bicubic')[0].clamp(0, 1) for s in smalls]
    found = super_resolution.evaluate(Nearest(), [(smalls, larges)], 0, ALONE, torch.no_grad)
    each = [
        super_resolution.evaluate(Nearest(), [([s], [t])], 0, ALONE, torch.no_grad)
        for s, t in zip(smalls, larges, strict=True)
    ]
    for key in ('psnr', 'ssim', 'bicubic_psnr', 'bicubic_ssim'):
        assert found[key] == pytest.approx(np.mean([one[key] for one in each]))
    assert found['least_gain'] == min(one['psnr'] - one['bicubic_psnr'] for one in each) < 0
    assert set(TASKS['srresnet'].columns) == set(found)


@pytest.mark.parametrize('name', ['ssd300', 'stairnet300', 'stairnet300_bam', 'stairnet300_bam_mul', 'srresnet_simam'])
def test_names_that_a_checkpoint_may_have(name: str) -> None:
    task = 'srresnet' if name.startswith('sr') else 'ssd'
    assert TASKS[task].knows(name) and not TASKS[task].knows(f'{name}_x') and not TASKS[task].knows('../resnet18')


# recipe -> the rows of the paper's table whose figures its header has
HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    'bam_voc': ('BAM 7', {'mAP': str, 'params': str}),
    'bam_sr_coco': ('BAM 8', {'Set5': str, 'Set14': str}),
}


@pytest.mark.parametrize('name', HEADERS)
def test_a_recipes_header_has_the_papers_figures(name: str) -> None:
    table, columns = HEADERS[name]
    header = '\n'.join(line for line in (RECIPES / f'{name}.yaml').read_text().splitlines() if line.startswith('#'))
    rows = next(t for t in printed()['tables'] if t['id'] == table)['rows']
    assert 'not trained here' in header
    for row in rows:
        for column in columns:
            if row[column] and not (row['row'].startswith('MobileNet') and column == 'params'):
                assert row[column].replace('/', ' / ') in header or row[column] in header, (row['row'], column)


@pytest.mark.parametrize('name', ['bam_voc', 'bam_ade20k', 'bam_sr', 'bam_sr_coco'])
def test_the_recipes_are_of_their_tasks(name: str) -> None:
    recipe = load_task_recipe(name)
    assert recipe.dataset in task_of(recipe).data
