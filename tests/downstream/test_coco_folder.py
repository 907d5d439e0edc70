"""COCO folders: labels, masks and crowds as published, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.downstream import write_coco
from timm_attn.data.fashion_mnist import CLASSES
from timm_attn.downstream.data.coco import Coco
from timm_attn.downstream.data.samples import Flipped
from timm_attn.downstream.data.scenes import Scenes
from timm_attn.downstream.metrics.rle import decoded, from_segmentation


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp('coco'))


def test_labels_boxes_and_masks_are_the_scenes(root: Path) -> None:
    coco = Coco(root, 'train2017', training=True, masks=True)
    assert coco.classes == list(CLASSES) and coco.ids == [*range(1, 31, 3)]
    assert len(coco) == 6  # not the empty one
    scenes = Scenes('train', 6, 32, seed=3)
    for index in range(6):
        (image, target), (drawn, true) = coco[index], scenes[index]
        assert (image - drawn).abs().max() < 1 / 255
        assert all(torch.equal(target[key], true[key]) for key in ('boxes', 'labels', 'masks', 'area', 'iscrowd'))
        assert coco.name(index) == str(root / 'train2017' / f'{index:012}.png')


def test_for_evaluation_crowds_and_empty_pictures_stay(root: Path) -> None:
    coco = Coco(root, 'val2017', masks=True)
    assert len(coco) == 6 and coco[0][1]['iscrowd'].tolist() == [False] * (len(coco[0][1]['labels']) - 1) + [True]
    empty = coco[5][1]
    assert empty['boxes'].shape == (0, 4) and empty['masks'].shape == (0, 32, 32)
    assert coco.fingerprint() != Coco(root, 'val2017').fingerprint() and coco.fingerprint()['images'] == 6


OTHERS: dict[str, Any] = dict(area=1.5, iscrowd=1, bbox=[0, 0, 5, 5], segmentation=[[1, 1, 5, 1, 5, 5]])


@pytest.mark.parametrize('key', OTHERS)
def test_other_annotations_have_another_fingerprint(key: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    before, file = Coco(root, 'val2017').fingerprint(), root / 'annotations' / 'instances_val2017.json'
    content = json.loads(file.read_text())
    next(row for row in content['annotations'] if not row['iscrowd'])[key] = OTHERS[key]
    file.write_text(json.dumps(content))
    assert Coco(root, 'val2017').fingerprint() != before


def test_polygons() -> None:
    mask = decoded(from_segmentation([[2.0, 1, 6, 1, 6, 4, 2, 4]], 8, 10))
    assert mask.shape == (8, 10) and mask[1:4, 2:6].all() and mask.sum() == 12
    with pytest.raises(ValueError, match="must be polygons or run lengths, but is 'here'"):
        from_segmentation('here', 8, 10)


def test_flips_move_boxes_and_masks(root: Path) -> None:
    coco = Coco(root, 'train2017', training=True, masks=True)
    (image, target), (flipped, moved) = coco[0], Flipped(coco, 1.0)[0]
    assert torch.equal(flipped, image.flip(-1)) and torch.equal(moved['masks'], target['masks'].flip(-1))
    left, right = moved['boxes'][:, 0], moved['boxes'][:, 2]
    assert torch.equal(left, 32 - target['boxes'][:, 2]) and torch.equal(right, 32 - target['boxes'][:, 0])
    assert torch.equal(Flipped(coco, 0.0)[0][0], image)


def first(content: Any) -> dict[str, Any]:
    row: dict[str, Any] = content['annotations'][0]
    return row


DAMAGES: list[tuple[Callable[[Any], object], str]] = [
    (lambda c: c.pop('categories'), "has no list 'categories' whose rows all have id, name"),
    (lambda c: c['images'][0].pop('file_name'), "has no list 'images' whose rows all have file_name, height, id"),
    (lambda c: first(c).update(category_id=2), 'annotation 1 has the category 2, which is not among its 1 to 28'),
    (lambda c: first(c).update(category_id=91), 'annotation 1 has the category 91, which is not among'),
    (lambda c: first(c).update(image_id=7), 'annotation 1 is of the picture 7, which is not among its images'),
    (lambda c: first(c).update(bbox=[40, 2, 5, 5]), r'has the bbox \[40, 2, 5, 5], outside its picture of 32 x 32'),
    (lambda c: first(c).update(bbox=[2, 2, 5]), r'has the bbox \[2, 2, 5], but it must be \[x, y, width, height]'),
    (lambda c: first(c).update(bbox=[2, 2, 5, float('nan')]), r'has the bbox \[2, 2, 5, nan], but it must be'),
    (lambda c: c['images'][1].update(id=None), 'row 1 of its images has the id None, but it must be an integer'),
    (lambda c: c['images'][0].update(width='32'), "row 0 of its images has the width '32', but it must be a whole"),
    (lambda c: c['images'][0].update(file_name=5), 'row 0 of its images has the file_name 5, but it must be the path'),
    (lambda c: c['images'][0].update(file_name='../a.png'), "has the file_name '../a.png', but it must be the path of"),
    (lambda c: c['images'][0].update(file_name='/a.png'), "has the file_name '/a.png', but it must be the path of a"),
    (lambda c: c['images'][0].update(file_name='\ud800'), 'row 0 of its images has the file_name .* must be the path'),
    (lambda c: c['images'][1].update(id=100), 'has two images with the id 100'),
    (lambda c: c['categories'][1].update(id=1), 'has two categories with the id 1'),
    (
        lambda c: c['categories'][0].update(name=None),
        'row 0 of its categories has the name None, but it must be a text',
    ),
    (lambda c: c['categories'][0].update(name='a\nb'), 'has class names .* but it must be'),
    (lambda c: first(c).update(image_id=[1]), r'annotation 1 has the image_id \[1], but it must be an integer'),
    (lambda c: first(c).update(category_id=True), 'annotation 1 has the category_id True, but it must be an integer'),
    (lambda c: first(c).update(bbox=[10**400, 2, 5, 5]), r'has the bbox \[1000.*, but it must be \[x, y'),
    (lambda c: first(c).update(bbox=['1', 2, 5, 5]), r"has the bbox \['1', 2, 5, 5], but it must be \[x, y"),
    (lambda c: first(c).update(area=float('nan')), 'annotation 1 has the area nan, but it must be a number from 0 on'),
    (lambda c: first(c).update(area=None), 'annotation 1 has the area None, but it must be a number from 0 on'),
    (lambda c: first(c).update(iscrowd='0'), "annotation 1 has the iscrowd '0', but it must be 0 or 1"),
    (lambda c: [row.update(iscrowd=1) for row in c['annotations']], 'has no picture with a box to train on'),
]


@pytest.mark.parametrize(('damage', 'message'), DAMAGES, ids=[m[:40] for _, m in DAMAGES])
def test_annotations_that_are_refused(damage: Callable[[Any], object], message: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path, 2, 1) / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        Coco(tmp_path, 'train2017', training=True)
    assert str(file) in str(caught.value)


def run_lengths(counts: Any, side: int = 32) -> dict[str, Any]:
    return dict(size=[side, side], counts=counts)


SEGMENTATIONS: list[tuple[Any, str]] = [
    ([], r'must be polygons or run lengths, but is \[]'),
    ([[1, 2, 3, 4, 5, 6, 7]], 'has a polygon that is not x1, y1, x2, y2 ... in and near 32 x 32 pixels'),
    ([[float('nan'), 2, 3, 4, 5, 6]], 'has a polygon that is not'),
    ([[1e9, 2, 3, 4, 5, 6]], 'has a polygon that is not'),  # would be drawn in 100 GB
    ([['a', 2, 3, 4, 5, 6]], 'has a polygon that is not'),
    (run_lengths([0, 40_000**2], 40_000), r'must have the size \[32, 32], \(H, W\) of its picture'),
    (run_lengths([0, 5]), 'decoded 5 pixels but expected 1024'),
    (run_lengths([0, 5000]), 'cannot be drawn: RLE counts exceed the mask dimensions'),
    (run_lengths([-5, 1029]), 'cannot be drawn: Unable to cast Python instance'),
    (run_lengths(5), "must be polygons or run lengths, but is {'counts': 5"),
]


@pytest.mark.parametrize(('segmentation', 'message'), SEGMENTATIONS)
def test_segmentations_that_are_refused(segmentation: Any, message: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path, 2, 1) / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    first(content).update(segmentation=segmentation)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        Coco(tmp_path, 'train2017', masks=True)[0]
    assert f'{file}: annotation 1: ' in str(caught.value) and '\n' not in str(caught.value)


def test_missing_files(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='There is no folder .*train2017 of pictures'):
        Coco(tmp_path, 'train2017')
    (tmp_path / 'train2017').mkdir()
    with pytest.raises(FileNotFoundError, match=r'There is no file .*instances_train2017.json of annotations'):
        Coco(tmp_path, 'train2017')
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'instances_train2017.json').write_text('{"images": [')
    with pytest.raises(ValueError, match='instances_train2017.json is not JSON'):
        Coco(tmp_path, 'train2017')


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 2, 1)
    coco = Coco(root, 'val2017')
    coco.pictures[0] = {**coco.pictures[0], 'width': 40}
    with pytest.raises(ValueError, match=r'0.png has 32 x 32 pixels, but .* says 40 x 32'):
        coco[0]
    (root / 'val2017' / f'{0:012}.png').unlink()
    with pytest.raises(ValueError, match='There is no image .*val2017'):
        coco[0]


def test_boxes_are_cut_at_the_edges(tmp_path: Path) -> None:
    file = write_coco(tmp_path, 2, 1) / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    first(content).update(bbox=[20, -4, 20, 10], image_id=100)
    file.write_text(json.dumps(content))
    boxes = Coco(tmp_path, 'train2017', training=True)[0][1]['boxes']
    np.testing.assert_array_equal(boxes[0], [20, 0, 32, 6])
