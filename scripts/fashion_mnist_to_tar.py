#!/usr/bin/env python3
"""Writes Fashion-MNIST as one tar of class folders (PNG) per split, which timm reads unchanged as RGB.

    python scripts/fashion_mnist_to_tar.py /usr/share/datasets/fashion-mnist OUT_DIR

gives OUT_DIR/train.tar and OUT_DIR/validation.tar: `--data-dir OUT_DIR --train-split train.tar
--val-split validation.tar` for timm's train.py. The files come from Debian's package dataset-fashion-mnist.
"""

import argparse
import io
import os
import tarfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from timm_attn.data.fashion_mnist import CLASSES, SPLITS, load_arrays


def write_tar(source: Path, split: str, target: Path) -> None:
    """One split as a tar; the target appears only when it is complete."""
    images, labels = load_arrays(source, split)
    partial = target.with_suffix('.tar.partial')
    with tarfile.open(partial, 'w') as tar:
        for i, (image, label) in enumerate(zip(tqdm(images, desc=target.name, disable=None), labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, 'PNG')
            info = tarfile.TarInfo(f'{label}_{CLASSES[label].replace(" ", "-")}/{i:05d}.png')
            info.size = png.tell()
            png.seek(0)
            tar.addfile(info, png)
    os.replace(partial, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='folder of the four idx files')
    parser.add_argument('target', type=Path, help='folder for the tar files')
    args = parser.parse_args()
    args.target.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        write_tar(args.source, split, args.target / f'{split}.tar')


if __name__ == '__main__':
    main()
