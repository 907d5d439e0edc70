"""PASCAL VOC as it is published: ROOT/VOC2007/{JPEGImages,Annotations,ImageSets/Main}, or ROOT/VOCdevkit/VOC2007."""

from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from timm_attn.downstream.data.samples import Sample, detection_target, digest
from timm_attn.images import read_image

CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class Voc:
    """Pictures of splits with their boxes; targets also have `difficult` (N,). For training, those with a box alone.

    Args:
        root: the folder of VOC2007 and VOC2012, or of VOCdevkit.
        splits: YEAR_SET, such as '2007_test', or several joined by '+', such as '2007_trainval+2012_trainval'.

    Boxes are those of the files less 1, x1, y1, x2, y2 of the first and the last pixel, counted from 0.

    Raises:
        FileNotFoundError: a list, a picture or an annotation is not there.
        ValueError: a split has another form, or an annotation is not VOC's.
    """

    classes = CLASSES

    def __init__(self, root: Path, splits: str, *, training: bool = False) -> None:
        self.splits = splits
        root = root / 'VOCdevkit' if (root / 'VOCdevkit').is_dir() else root
        self.pictures = [picture for split in splits.split('+') for picture in _listed(root, split)]
        self.objects = [_objects(_annotation(picture)) for picture in self.pictures]
        if training:
            kept = [i for i, (boxes, *_) in enumerate(self.objects) if len(boxes)]
            self.pictures, self.objects = [self.pictures[i] for i in kept], [self.objects[i] for i in kept]
        if not self.pictures:
            raise ValueError(f'{splits} of {root} has no picture{" with a box to train on" if training else ""}.')

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        image = pil_to_tensor(read_image(self.pictures[index])).float() / 255
        boxes, labels, difficult = self.objects[index]
        height, width = image.shape[1:]
        if len(boxes) and bool((boxes.amax(dim=0) > torch.tensor([width, height, width, height])).any()):
            raise ValueError(
                f'{_annotation(self.pictures[index])} has a box outside its picture of {width} x {height}.'
            )
        return image, {**detection_target(index, (height, width), boxes, labels), 'difficult': difficult}

    def name(self, index: int) -> str:
        """The file of a picture."""
        return str(self.pictures[index])

    def fingerprint(self) -> dict[str, Any]:
        """The number of pictures, and the SHA-256 of their names and objects."""
        parts = [
            (path.name, *(t.tolist() for t in known)) for path, known in zip(self.pictures, self.objects, strict=True)
        ]
        return dict(images=len(self), sha256=digest([self.splits, *parts]))


def _listed(root: Path, split: str) -> list[Path]:
    """The pictures of one YEAR_SET."""
    year, _, name = split.partition('_')
    if not year.isdecimal() or not name.isidentifier():
        raise ValueError(
            f'A split of VOC is YEAR_SET, such as 2007_trainval, or several with + between, not {split!r}.'
        )
    folder = root / f'VOC{year}'
    file = folder / 'ImageSets' / 'Main' / f'{name}.txt'
    if not file.is_file():
        raise FileNotFoundError(f'There is no list {file} of the pictures of {split}.')
    try:
        names = [line.split()[0] for line in file.read_text(encoding='utf-8').splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} is not a list of pictures: {error}.') from error
    for name, count in Counter(names).items():
        if count > 1 or Path(name).name != name:
            wrong = f'{count} times' if count > 1 else 'which is no name of a file'
            raise ValueError(f'{file} has the picture {name!r}, {wrong}.')
    pictures = [folder / 'JPEGImages' / f'{name}.jpg' for name in names]
    for picture in pictures:
        for needed in (picture, _annotation(picture)):
            if not needed.is_file():
                raise FileNotFoundError(f'{file} names {picture.stem}, but there is no {needed}.')
    return pictures


def _annotation(picture: Path) -> Path:
    return picture.parents[1] / 'Annotations' / f'{picture.stem}.xml'


def _objects(file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), labels (N,) and difficult (N,) of an annotation."""
    try:
        root = ElementTree.parse(file).getroot()
        if root.tag != 'annotation':
            raise ValueError(f'it begins with <{root.tag}>')
        found = [_object(node) for node in root.iterfind('object')]
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: of an unknown encoding
        raise ValueError(f'{file} is not an annotation of VOC: {error}.') from error
    boxes = torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([label for _, label, _ in found], dtype=torch.int64)
    return boxes, labels, torch.tensor([difficult for _, _, difficult in found], dtype=torch.bool)


def _object(node: ElementTree.Element) -> tuple[list[float], int, bool]:
    name = node.findtext('name', '').strip()
    if name not in CLASSES:
        raise ValueError(f'its object {name!r} is none of the {len(CLASSES)} classes')
    texts = [node.findtext(f'bndbox/{corner}') for corner in _CORNERS]
    if None in texts:
        raise ValueError(f'a box of {name!r} has no {_CORNERS[texts.index(None)]}')
    x1, y1, x2, y2 = box = [float(text) - 1 for text in texts if text is not None]
    if not (-1 <= x1 < x2 and -1 <= y1 < y2):  # some files of VOC 2012 begin at 0
        raise ValueError(f'a box of {name!r} has the corners {", ".join(map(str, texts))}')
    return box, CLASSES.index(name) + 1, node.findtext('difficult', '0').strip() == '1'
