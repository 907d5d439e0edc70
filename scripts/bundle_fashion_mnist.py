#!/usr/bin/env python3
"""Writes the part of Fashion-MNIST that comes with the package: the first 100 images of each class of each split.

python scripts/bundle_fashion_mnist.py /usr/share/datasets/fashion-mnist
"""

import argparse
from pathlib import Path

import numpy as np

from timm_attn.data.fashion_mnist import CLASSES, SPLITS, load_arrays
from timm_attn.data.idx import write_idx

PER_CLASS = 100
TARGET = Path(__file__).resolve().parents[1] / 'timm_attn' / 'data' / 'fashion_mnist'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='folder of the four idx files')
    source = parser.parse_args().source
    for split, stem in SPLITS.items():
        images, labels = load_arrays(source, split)
        of_class = [np.flatnonzero(labels == c)[:PER_CLASS] for c in range(len(CLASSES))]
        chosen = np.sort(np.concatenate(of_class))
        write_idx(TARGET / f'{stem}-images-idx3-ubyte.gz', images[chosen])
        write_idx(TARGET / f'{stem}-labels-idx1-ubyte.gz', labels[chosen])


if __name__ == '__main__':
    main()
