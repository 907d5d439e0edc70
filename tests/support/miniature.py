"""PASCAL VOC and ADE20K in miniature, written from scenes, and folders of scikit-image's photographs."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from timm_attn.downstream.data.scenes import Scene, Scenes
from timm_attn.downstream.data.voc import CLASSES

SIZE = 64


def write_voc(root: Path, train: int = 4, test: int = 3) -> Path:
    """ROOT/VOCdevkit/VOC2007 with the lists trainval and test; an article has the name of VOC's class of its number.

    The first object of each test picture is difficult where it is not the only one.
    """
    year = root / 'VOCdevkit' / 'VOC2007'
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (year / folder).mkdir(parents=True)
    for split, name, count in (('train', 'trainval', train), ('validation', 'test', test)):
        scenes, stems = Scenes(split, count, SIZE, seed=3), []
        for index in range(count):
            scene, stem = scenes.scene(index), f'{len(stems) + 1000 * (name == "test"):06}'
            stems.append(stem)
            to_pil_image(scene.image).save(year / 'JPEGImages' / f'{stem}.jpg')
            write_annotation(year / 'Annotations' / f'{stem}.xml', scene, difficult=name == 'test')
        (year / 'ImageSets' / 'Main' / f'{name}.txt').write_text('\n'.join(stems) + '\n')
    return root


def write_annotation(file: Path, scene: Scene, difficult: bool = False) -> None:
    """VOC's corners count from 1 and belong to the box."""
    annotation = ElementTree.Element('annotation')
    for i, (box, label) in enumerate(zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)):
        node = ElementTree.SubElement(annotation, 'object')
        ElementTree.SubElement(node, 'name').text = CLASSES[label - 1]
        ElementTree.SubElement(node, 'difficult').text = str(int(difficult and i == 0 and len(scene.boxes) > 1))
        corners = ElementTree.SubElement(node, 'bndbox')
        left, top, right, bottom = (int(value) for value in box)
        for name, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (left + 1, top + 1, right, bottom), strict=True):
            ElementTree.SubElement(corners, name).text = str(value)
    ElementTree.ElementTree(annotation).write(file)


def write_ade20k(root: Path, train: int = 4, validation: int = 2) -> Path:
    """ROOT/{images,annotations}/{training,validation}; the background has the label 11, the last row none."""
    for split, name, count in (('train', 'training', train), ('validation', 'validation', validation)):
        scenes = Scenes(split, count, SIZE, seed=3)
        for kind in ('images', 'annotations'):
            (root / kind / name).mkdir(parents=True)
        for index in range(count):
            scene = scenes.scene(index)
            labels = scene.label_map.numpy().astype(np.uint8)
            labels[labels == 0] = 11
            labels[-1] = 0
            to_pil_image(scene.image).save(root / 'images' / name / f'ADE_{index:08}.jpg')
            Image.fromarray(labels).save(root / 'annotations' / name / f'ADE_{index:08}.png')
    return root


def write_pictures(root: Path, **splits: list[np.ndarray]) -> Path:
    """ROOT/SPLIT/NUMBER.png of pictures (H, W, 3)."""
    for split, pictures in splits.items():
        (root / split).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(np.ascontiguousarray(picture)).save(root / split / f'{number}.png')
    return root
