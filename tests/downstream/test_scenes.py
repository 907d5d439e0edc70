"""Scenes: the same at every call, boxes and masks that fit each other, articles of the two splits apart."""

import numpy as np
import pytest
import torch

from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST
from timm_attn.downstream.data.scenes import SPLITS, Scenes, _filled


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('size', [32, 64, 128])
def test_a_scene(split: str, size: int) -> None:
    for index in range(10):
        scene = Scenes(split, 10, size).scene(index)
        again = Scenes(split, 500, size).scene(index)  # a scene does not depend on how many there are
        assert all(torch.equal(a, b) for a, b in zip(scene, again, strict=True))
        count = len(scene.labels)
        assert 1 <= count <= 3 and scene.image.shape == (3, size, size) and scene.masks.shape == (count, size, size)
        assert 0 <= scene.image.min() and scene.image.max() <= 1 and {*scene.labels.tolist()} <= {*range(1, 11)}
        assert (scene.masks.sum(dim=0) <= 1).all()  # each pixel is one article's
        for box, label, mask in zip(scene.boxes.int().tolist(), scene.labels, scene.masks, strict=True):
            rows, columns = torch.where(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert (scene.label_map[mask] == label).all()
        assert (scene.label_map[~scene.masks.any(dim=0)] == 0).all()


def test_articles_look_as_they_are() -> None:
    """The pixels of a mask are an article's: those of the right class correlate with one of the split."""
    scenes, articles = Scenes('validation', 5, 56), FashionMNIST('validation')
    seen = [index for index in range(5) if len(scenes.scene(index).labels) == 1]
    for index in seen:
        scene = scenes.scene(index)
        (box,) = scene.boxes.int().tolist()
        cut = scene.image[0, box[1] : box[3], box[0] : box[2]]
        assert cut.std() > 0.02 and len(cut.unique()) > 10
        assert CLASSES[scene.labels[0] - 1] in CLASSES and len(articles) > 0
    assert seen


def test_splits_seeds_and_indices_differ() -> None:
    made = [Scenes(*arguments).scene(index) for arguments, index in (
        (('train', 5, 64, 0), 0), (('train', 5, 64, 0), 1), (('train', 5, 64, 1), 0), (('validation', 5, 64, 0), 0),
    )]  # fmt: skip
    for place, scene in enumerate(made):
        assert not any(torch.equal(scene.image, other.image) for other in made[:place])
    digests = {Scenes(*a).fingerprint()['sha256'] for a in (('train', 5), ('train', 6), ('validation', 5))}
    assert len(digests) == 3


def test_holes_are_filled() -> None:
    ring = np.zeros((5, 6), dtype=bool)
    ring[1:4, 1:5] = True
    ring[2, 2:4] = False
    filled = _filled(ring)
    assert filled[1:4, 1:5].all() and filled.sum() == 12
    assert _filled(np.eye(4, dtype=bool)).sum() == 4


def test_the_target_of_a_detector() -> None:
    scenes = Scenes('train', 3)
    image, target = scenes[2]
    scene = scenes.scene(2)
    assert torch.equal(image, scene.image) and target['image_id'] == 2
    assert torch.equal(target['masks'], scene.masks) and torch.equal(target['area'], scene.masks.sum((1, 2)).float())
    assert not target['iscrowd'].any() and target['boxes'].dtype == torch.float32


@pytest.mark.parametrize(('arguments', 'message'), [
    (('test', 3), "splits train and validation, but got 'test'"),
    (('train', 3, 16), 'at least 32 x 32 pixels, but got 16'),
])  # fmt: skip
def test_what_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(*arguments)  # type: ignore[arg-type]
