"""VOC, ADE20K and picture folders: what they give, and one line for what they cannot be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.miniature import write_ade20k, write_pictures, write_voc
from timm_attn.downstream.data.ade20k import Ade20k
from timm_attn.downstream.data.pictures import Patches, Pictures, pair_at
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.data.voc import CLASSES, Voc
from timm_attn.downstream.resize import imresize_uint8


def test_voc_has_the_boxes_of_its_files_less_one(tmp_path: Path) -> None:
    samples = Voc(write_voc(tmp_path), '2007_test')
    assert len(samples) == 3 and samples.classes == CLASSES and len(CLASSES) == 20
    for index in range(3):
        scene, (image, target) = Scenes('validation', 3, 64, seed=3).scene(index), samples[index]
        assert image.shape == (3, 64, 64) and 0 <= image.min() and image.max() <= 1
        assert torch.equal(target['boxes'].as_subclass(torch.Tensor), scene.boxes - torch.tensor([0, 0, 1, 1]))
        assert torch.equal(target['labels'], scene.labels) and target['image_id'] == index
        assert target['difficult'].tolist() == [i == 0 and len(scene.boxes) > 1 for i in range(len(scene.boxes))]
    assert any(samples[i][1]['difficult'].any() for i in range(3))


def test_voc_joins_splits(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    both = Voc(root / 'VOCdevkit', '2007_trainval+2007_test')
    assert len(both) == 7 and both.name(4) == str(root / 'VOCdevkit/VOC2007/JPEGImages/001000.jpg')
    assert both.fingerprint() == Voc(root, '2007_trainval+2007_test').fingerprint()
    assert both.fingerprint()['sha256'] != Voc(root, '2007_test+2007_trainval').fingerprint()['sha256']


XML = '<annotation><object><name>cat</name><bndbox>{}</bndbox></object></annotation>'
BOX = '<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>'


@pytest.mark.parametrize(
    ('xml', 'message'),
    [
        ('<annotation>', 'is not an annotation of VOC: no element found'),
        (XML.format(BOX.format(1, 1, 9, 9)).replace('cat', 'dragon'), "its object 'dragon' is none of the 20 classes"),
        (XML.format('<xmin>1</xmin>'), "a box of 'cat' has no ymin"),
        (XML.format(BOX.format(9, 1, 9, 9)), "a box of 'cat' has the corners 9, 1, 9, 9"),
        (XML.format(BOX.format('nan', 1, 9, 9)), "a box of 'cat' has the corners nan, 1, 9, 9"),
        (XML.format(BOX.format('one', 1, 9, 9)), 'could not convert string'),
        ('<html/>', 'is not an annotation of VOC: it begins with <html>'),
        ('<?xml version="1.0" encoding="foo"?><annotation/>', 'is not an annotation of VOC: unknown encoding: foo'),
        (XML.format(BOX.format(1, 1, 9, 99)), 'has a box outside its picture of 64 x 64'),
    ],
)
def test_annotations_that_are_not_vocs(tmp_path: Path, xml: str, message: str) -> None:
    root = write_voc(tmp_path)
    (root / 'VOCdevkit/VOC2007/Annotations/001000.xml').write_text(xml)
    with pytest.raises(ValueError, match=message) as error:
        Voc(root, '2007_test')[0]
    assert '001000.xml' in str(error.value) and '\n' not in str(error.value)


def test_a_voc_that_is_not_there(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    with pytest.raises(FileNotFoundError, match='There is no list .*VOC2012.*trainval.txt of the pictures of 2012_tr'):
        Voc(root, '2007_trainval+2012_trainval')
    with pytest.raises(ValueError, match="A split of VOC is YEAR_SET, such as 2007_trainval, .* not 'test'"):
        Voc(root, 'test')
    (root / 'VOCdevkit/VOC2007/Annotations/001001.xml').unlink()
    with pytest.raises(FileNotFoundError, match='test.txt names 001001, but there is no .*Annotations/001001.xml'):
        Voc(root, '2007_test')


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (b'001000\n001000\n', "has the picture '001000', 2 times"),
        (b'../../001000\n', "has the picture '../../001000', which is no name of a file"),
        (b'\xff\n', 'is not a list of pictures'),
    ],
)
def test_lists_of_voc_that_are_refused(tmp_path: Path, names: bytes, message: str) -> None:
    root = write_voc(tmp_path)
    (root / 'VOCdevkit/VOC2007/ImageSets/Main/test.txt').write_bytes(names)
    with pytest.raises(ValueError, match=f'test.txt {message}'):
        Voc(root, '2007_test')


def test_pictures_of_more_pixels_than_pillow_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_ade20k(tmp_path)
    folder = write_pictures(tmp_path, test=[np.zeros((96, 96, 3), np.uint8)])
    samples = Ade20k(root, 'validation')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(ValueError, match=r'0.png cannot be read as an image: .*9216 pixels.* exceeds limit'):
        Pictures(folder, 'test')
    monkeypatch.setattr('timm_attn.downstream.data.ade20k.read_image', lambda file: Image.new('RGB', (64, 64)))
    with pytest.raises(ValueError, match=r'0.png cannot be read as a label map: .*4096 pixels.* exceeds limit'):
        samples[0]


def test_pictures_without_a_box_are_not_trained_on(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    (root / 'VOCdevkit/VOC2007/Annotations/000002.xml').write_text('<annotation/>')
    assert len(Voc(root, '2007_trainval')) == 4
    kept = Voc(root, '2007_trainval', training=True)
    assert [Path(kept.name(i)).stem for i in range(len(kept))] == ['000000', '000001', '000003']
    assert Voc(root, '2007_trainval')[2][1]['boxes'].shape == (0, 4)


def test_ade20k_has_the_labels_less_one(tmp_path: Path) -> None:
    samples = Ade20k(write_ade20k(tmp_path), 'validation')
    image, labels = samples[1]
    expected = Scenes('validation', 2, 64, seed=3).scene(1).label_map
    assert image.shape == (3, 64, 64) and len(samples.classes) == 150 and samples.classes[0] == 'class 1'
    assert torch.equal(labels[:-1], torch.where(expected == 0, 10, expected - 1)[:-1])
    assert labels[-1].unique().tolist() == [-1]


def test_ade20ks_names_are_those_of_its_file(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    lines = ['Idx\tRatio\tTrain\tVal\tName', *(f'{i}\t0.1\t1\t1\tthing {i}, stuff' for i in range(1, 151))]
    (root / 'objectInfo150.txt').write_text('\n'.join(lines))
    assert Ade20k(root, 'training').classes[149] == 'thing 150, stuff'
    (root / 'objectInfo150.txt').write_text('\n'.join(lines[:-1]))
    with pytest.raises(ValueError, match='names 149 classes, but there are 150'):
        Ade20k(root, 'training')


def test_names_of_ade20k_that_are_no_text(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    (root / 'objectInfo150.txt').write_bytes(b'\xff\n' * 151)
    with pytest.raises(ValueError, match='objectInfo150.txt does not name classes'):
        Ade20k(root, 'validation')


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.full((64, 64), 151, np.uint8), 'has the label 151, but the labels are 0 to 150'),
        (np.ones((64, 60), np.uint8), 'has 60 x 64 pixels, but its picture 64 x 64'),
        (np.ones((64, 64, 3), np.uint8), 'its mode is RGB, but must be L'),
    ],
)
def test_label_maps_that_are_not_ade20ks(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    root = write_ade20k(tmp_path)
    file = root / 'annotations/training/ADE_00000000.png'
    Image.fromarray(labels).save(file)
    with pytest.raises(ValueError, match=message) as error:
        Ade20k(root, 'training')[0]
    assert str(file) in str(error.value)


def test_an_ade20k_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='There is no folder .*images/training'):
        Ade20k(tmp_path, 'training')
    root = write_ade20k(tmp_path)
    (root / 'annotations/training/ADE_00000001.png').unlink()
    with pytest.raises(FileNotFoundError, match='ADE_00000001.jpg has no label map .*ADE_00000001.png'):
        Ade20k(root, 'training')
    (root / 'annotations/training/ADE_00000001.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='cannot be read as a label map'):
        Ade20k(root, 'training')[1]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)


def test_pictures_are_whole_and_reduced_by_matlabs_bicubic(tmp_path: Path) -> None:
    picture = noise(96, 120)
    small, large = Pictures(write_pictures(tmp_path, test=[picture]), 'test')[0]
    assert torch.equal(large, torch.from_numpy(picture).permute(2, 0, 1) / 255)
    assert torch.equal(small, torch.from_numpy(imresize_uint8(picture, 24, 30)).permute(2, 0, 1) / 255)


def test_patches_are_of_the_pictures_in_turn_from_places_that_the_seed_gives(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, train=[np.full((97, 130, 3), 40 * i, np.uint8) for i in range(3)])
    patches = Patches(root, 'train', 5, 32)
    assert len(patches) == 5
    means = [round(255 * float(patches[i][1].mean())) for i in range(5)]
    assert means == [0, 40, 80, 0, 40]
    many = Patches(write_pictures(tmp_path / 'b', train=[noise(97, 130)]), 'train', 4, 32)
    torch.manual_seed(1)
    first = [many[0][1] for _ in range(4)]
    torch.manual_seed(1)
    assert all(torch.equal(many[0][1], one) for one in first)
    assert not torch.equal(first[0], first[1])
    small, large = many[0]
    assert small.shape == (3, 8, 8) and large.shape == (3, 32, 32)


def test_a_patchs_small_picture_is_turned_with_it(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 96)[None, :, None], (96, 96, 3)).round().astype(np.uint8)
    patches, seen = Patches(write_pictures(tmp_path, train=[ramp]), 'train', 1, 96), set()
    torch.manual_seed(0)
    for _ in range(20):
        small, large = patches[0]
        assert torch.nn.functional.avg_pool2d(large, 4) == pytest.approx(small, abs=0.02)
        seen.add((float(large[0, 0, 0]), float(large[0, -1, 0]), float(large[0, 0, -1])))
    assert len(seen) == 4


def test_sides_beyond_a_multiple_of_4_are_cut_off(tmp_path: Path) -> None:
    picture = noise(98, 123)
    cut = write_pictures(tmp_path / 'cut', test=[picture[:96, :120]])
    whole = write_pictures(tmp_path / 'whole', test=[picture])
    for ours, theirs in zip(Pictures(whole, 'test')[0], Pictures(cut, 'test')[0], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(('y', 'x'), [(0, 0), (8, 40), (4, 96), (64, 20), (32, 0)])
def test_a_patch_is_reduced_as_its_whole_picture_is(y: int, x: int) -> None:
    picture = noise(96, 128)
    small, large = pair_at(picture, y, x, 32)
    assert np.array_equal(large, picture[y : y + 32, x : x + 32])
    assert np.array_equal(small, imresize_uint8(picture, 24, 32)[y // 4 : y // 4 + 8, x // 4 : x // 4 + 8])
    assert pair_at(picture, 3, 61, 32)[0].shape == (8, 8, 3)  # between the steps


@pytest.mark.parametrize(
    ('opened', 'shape', 'message'),
    [
        (Pictures, (92, 120), r'0.png has 120 x 92 pixels, but each side needs at least 96'),
        (lambda root, split: Patches(root, split, 1, 32), (95, 120), r'0.png has 120 x 95 .* at least 96'),
        (lambda root, split: Patches(root, split, 1, 128), (120, 140), r'0.png has 140 x 120 .* at least 128'),
        (lambda root, split: Patches(root, split, 1, 30), (120, 140), 'multiple of 4, but is 30'),
    ],
)
def test_pictures_that_do_not_fit(
    tmp_path: Path, opened: Callable[[Path, str], Pictures], shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(write_pictures(tmp_path, test=[noise(*shape)]), 'test')


def test_folders_of_pictures_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='There is no folder .*none of pictures'):
        Pictures(tmp_path, 'none')
    (tmp_path / 'none').mkdir()
    with pytest.raises(ValueError, match='The folder .*none has no pictures'):
        Pictures(tmp_path, 'none')
    (tmp_path / 'none' / 'a.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='a.png cannot be read as an image'):
        Pictures(tmp_path, 'none')
