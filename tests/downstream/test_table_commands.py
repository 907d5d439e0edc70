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
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.ssd import CHANNELS, SIZES
from timm_attn.downstream.trained import evaluate, load


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
SMALL = {'bam_voc': ['train_split=2007_trainval'], 'bam_sr': ['train_num_samples=8']}  # of the miniature sets


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


class Same(nn.Module):
    """A net whose output is its input, as a picture or as maps of three classes."""

    def forward(self, x: Tensor, full_size: bool = True) -> Tensor:
        return x


@pytest.mark.parametrize('task', [scene_parsing, super_resolution])
def test_a_predicted_picture_is_written_whole_or_not_at_all(
    tmp_path: Path, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, image = tmp_path / 'found' / 'a.png', torch.rand(3, 64, 64)
    task.predict(Same(), image, ['a', 'b', 'c'], picture, 'csv')
    before = picture.read_bytes()

    def full(source: object, target: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', full)
    with pytest.raises(RuntimeError, match='a.png .* cannot be written: No space left on device'):
        task.predict(Same(), 1 - image, ['a', 'b', 'c'], picture, 'csv')
    assert picture.read_bytes() == before


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
    arguments = ('--config', config, '--model', model, '--data-dir', root, '--output', tmp_path / 'out')
    assert run('train', *arguments, '--set', *COMMON, *SMALL.get(config, [])) == 1
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
    changes = [*COMMON, *SMALL.get(config, [])]
    arguments = ('--config', config, '--model', model, '--data-dir', tmp_path, '--output', tmp_path / 'out')
    assert run('train', *arguments, '--set', *changes) == 1
    said = capsys.readouterr().err.strip()
    assert message in said and '\n' not in said, said
    assert not list((tmp_path / 'out').glob('*.safetensors'))
