"""VOC, ADE20K and super-resolution through train, evaluate and predict, on miniatures of the data sets."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tests.support.miniature import write_ade20k, write_pictures, write_voc
from timm_attn.cli import main
from timm_attn.downstream import scene_parsing, super_resolution, voc_detection
from timm_attn.downstream.data.ade20k import Ade20k
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.data.voc import Voc
from timm_attn.downstream.recipe import RECIPES, load_task_recipe
from timm_attn.downstream.ssd import CHANNELS, SIZES
from timm_attn.downstream.tasks import TASKS, task_of
from timm_attn.downstream.trained import evaluate, load
from timm_attn.paper.compare import printed
from timm_attn.training.processes import ALONE


class SmallMaps(nn.Module):
    """Maps of SSD's shapes by pooling and a 1x1 convolution each, in the place of VGG16."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, channels, 1) for channels in CHANNELS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled = (F.adaptive_avg_pool2d(x, size) for size in SIZES)
        maps = (conv(p) for conv, p in zip(self.convs, pooled, strict=True))
        return OrderedDict((str(i), one) for i, one in enumerate(maps))


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ('ssd', 'stairnet'):
        monkeypatch.setattr(f'timm_attn.downstream.{module}.vgg_maps', lambda num_classes, pretrained: SmallMaps())


COMMON = ['workers=0', 'batch_size=2', 'validation_batch_size=2', 'epochs=1', 'pretrained=false', 'device=cpu']


def run(*arguments: object) -> Any:
    return main(['downstream', *map(str, arguments)])


def train(config: str, model: str, data: Path, out: Path, *changes: str) -> Path:
    run('train', '--config', config, '--model', model, '--data-dir', data, '--output', out, '--set', *COMMON, *changes)
    return out / 'last.safetensors'


def test_voc_goes_through_the_commands(tmp_path: Path, small_vgg: None, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_voc(tmp_path / 'voc', train=2, test=2)
    weights = train('bam_voc', 'stairnet300_bam_mul', root, tmp_path / 'out', 'train_split=2007_trainval')
    run('evaluate', weights, '--data-dir', root)
    said = capsys.readouterr().out.splitlines()[-1]
    assert 'mAP ' in said
    found = evaluate(weights, root)
    classes = {
        voc_detection.CLASSES[label - 1] for i in range(2) for label in Scenes('validation', 2, 64, 3).scene(i).labels
    }
    assert found.keys() <= {'mAP', *classes} and 0 <= found['mAP'] <= 100
    assert found['mAP'] == pytest.approx(np.mean([value for key, value in found.items() if key != 'mAP']))
    picture = root / 'VOCdevkit/VOC2007/JPEGImages/001000.jpg'
    run('predict', weights, picture, '--output', tmp_path / 'found')
    assert Image.open(tmp_path / 'found/001000_ssd.png').size[0] > 0
    assert (tmp_path / 'found/001000_ssd.csv').read_text().startswith('class,score')


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


def test_ade20k_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_ade20k(tmp_path / 'ade')
    small = ['task_kwargs={width: 8}', 'train_img_sizes=[48, 64]', 'input_size=[3, 64, 64]']
    weights = train('bam_ade20k', 'resnet18_bam', root, tmp_path / 'out', *small)
    run('evaluate', weights, '--data-dir', root)
    assert 'mIoU ' in capsys.readouterr().out.splitlines()[-1]
    picture = root / 'images/validation/ADE_00000000.jpg'
    run('predict', weights, picture, '--output', tmp_path / 'found', '--numbers', 'json')
    assert Image.open(tmp_path / 'found/ADE_00000000_upernet.png').size == (64, 64)
    assert (tmp_path / 'found/ADE_00000000_upernet.json').is_file()
    model, recipe, classes = load(weights)
    assert recipe.task == 'upernet' and len(classes) == 150 and recipe.mean == pytest.approx([0.485, 0.456, 0.406])


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


def test_super_resolution_goes_through_the_commands_and_beats_bicubic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four parts of photographs, a small net and some seconds; scripts/super_resolution.py does it in earnest."""
    data = pytest.importorskip('skimage.data')
    motorcycle, astronaut = data.stereo_motorcycle()[0], data.astronaut()
    trained = [motorcycle[100:300, 100:400], motorcycle[250:450, 400:700], data.coffee()[100:300, 148:400]]
    tested = [astronaut[:192, 128:320], astronaut[320:, 320:]]
    root = write_pictures(tmp_path / 'pictures', train=trained, validation=tested)
    small = ['task_kwargs={blocks: 1, every: 1, width: 16, bicubic_skip: true}', 'input_size=[3, 48, 48]']
    changes = ['batch_size=4', 'train_num_samples=800', 'epochs=1', 'lr=2.0e-3', 'warmup_updates=10']
    weights = train('bam_sr', 'srresnet_bam', root, tmp_path / 'out', *small, *changes)
    run('evaluate', weights, '--data-dir', root)
    assert 'psnr ' in capsys.readouterr().out.splitlines()[-1]
    found = evaluate(weights, root)
    assert found['least_gain'] > 0 and found['ssim'] > found['bicubic_ssim'], found
    picture = tmp_path / 'small.png'
    Image.fromarray(astronaut[:100, :131]).save(picture)
    run('predict', weights, picture, '--output', tmp_path / 'large')
    large = np.asarray(Image.open(tmp_path / 'large/small_srresnet.png'))
    assert large.shape == (400, 524, 3)
    assert np.abs(large.astype(float) - super_resolution.bicubic(astronaut[:100, :131])).mean() < 5


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


@pytest.mark.parametrize(
    ('config', 'model', 'message'),
    [
        ('bam_voc', 'ssd300_bam', "Unknown model 'ssd300_bam': choose from ssd300, stairnet300, stairnet300_ATTENTION"),
        ('bam_voc', 'resnet18', "Unknown model 'resnet18': choose from ssd300"),
        ('bam_sr', 'srresnet_bamm', "Unknown attention 'bamm': choose from se, cbam"),
        ('bam_sr', 'resnet18_bam', "Unknown model 'resnet18_bam': choose from srresnet, srresnet_ATTENTION"),
    ],
)
def test_a_model_that_a_task_does_not_have_is_one_line(
    tmp_path: Path, config: str, model: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_voc(tmp_path, train=2, test=1)
    write_pictures(tmp_path, train=[np.zeros((96, 96, 3), np.uint8)], validation=[np.zeros((96, 96, 3), np.uint8)])
    changes = ['train_num_samples=8', *(['train_split=2007_trainval'] if config == 'bam_voc' else [])]
    assert (
        run(
            'train',
            '--config',
            config,
            '--model',
            model,
            '--data-dir',
            root,
            '--output',
            tmp_path / 'out',
            '--set',
            *COMMON,
            *changes,
        )
        == 1
    )
    said = capsys.readouterr().err.strip()
    assert message in said and '\n' not in said
    assert not list((tmp_path / 'out').glob('last*'))


def break_ade20k(root: Path, labels: np.ndarray) -> None:
    write_ade20k(root)
    for file in (root / 'annotations/training').iterdir():
        Image.fromarray(labels).save(file)


BROKEN: dict[str, tuple[str, str, Any, str]] = {
    'label 151': (
        'bam_ade20k', 'cifar_resnet20',
        lambda root: break_ade20k(root, np.full((64, 64), 151, np.uint8)), 'has the label 151, but the labels are 0 to',
    ),
    'other size': (
        'bam_ade20k', 'cifar_resnet20',
        lambda root: break_ade20k(root, np.ones((60, 64), np.uint8)), 'has 64 x 60 pixels, but its picture 64 x 64',
    ),
    'no label map': (
        'bam_ade20k', 'cifar_resnet20',
        lambda root: (write_ade20k(root) / 'annotations/training/ADE_00000001.png').unlink(), 'has no label map',
    ),
    'not divisible': (
        'bam_sr', 'srresnet',
        lambda root: write_pictures(root, train=[BLACK[:99]], validation=[BLACK[:98]]), 'cut it to 120 x 96',
    ),
    'too small': (
        'bam_sr', 'srresnet',
        lambda root: write_pictures(root, train=[BLACK[:95]], validation=[BLACK]), 'each side needs at least 96',
    ),
    'no annotation': (
        'bam_voc', 'ssd300',
        lambda root: next(write_voc(root).rglob('000001.xml')).unlink(), 'names 000001, but there is no',
    ),
    'no folder': ('bam_voc', 'ssd300', lambda root: None, 'There is no list'),
}  # fmt: skip
BLACK = np.zeros((120, 120, 3), np.uint8)


@pytest.mark.parametrize('case', BROKEN)
def test_data_that_does_not_fit_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, model, write, message = BROKEN[case]
    write(tmp_path)
    changes = [*COMMON, 'train_num_samples=8', *(['train_split=2007_trainval'] if config == 'bam_voc' else [])]
    arguments = ('--config', config, '--model', model, '--data-dir', tmp_path, '--output', tmp_path / 'out')
    assert run('train', *arguments, '--set', *changes) == 1
    said = capsys.readouterr().err.strip()
    assert message in said and '\n' not in said, said
    assert not list((tmp_path / 'out').glob('*.safetensors'))


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
