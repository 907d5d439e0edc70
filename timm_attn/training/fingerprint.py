"""A digest of the images of a training, so that a resumed run cannot go on with others."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from timm_attn.data.datasets import Subset

IMAGES = ('training images', 'validation images')  # their keys in a checkpoint's options


def fingerprints(trained_on: Any, tested_on: Any) -> dict[str, dict[str, Any]]:
    """The fingerprints of the training and the validation images."""
    return dict(zip(IMAGES, map(fingerprint, (trained_on, tested_on)), strict=True))


def fingerprint(dataset: Any) -> dict[str, Any]:
    """The number of a set's images, and a SHA-256 of their names and labels in their order, as far as the set has them.

    Names are relative to the split's root. timm's folders and tars, and torchvision's folders, have names and labels,
    other torchvision sets labels; hfds/ sets have their number alone, and streams at most the number they promise.
    """
    if isinstance(dataset, IterableDataset):
        return dict(images=getattr(getattr(dataset, 'reader', None), 'num_samples', None), sha256=None)
    whole, indices = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, None)
    names, labels = _names_and_labels(getattr(whole, 'reader', whole))
    if labels is None or len(labels) != len(whole):
        return dict(images=len(dataset), sha256=None)
    if indices is not None:
        names, labels = [names[i] for i in indices] if names else [], labels[indices]
    found = hashlib.sha256('\0'.join(names).encode('utf-8', 'surrogateescape'))
    found.update(b'\0\0' + labels.tobytes())
    return dict(images=len(dataset), sha256=found.hexdigest())


def difference(then: Any, now: Mapping[str, Any]) -> str:
    """How the images of two different fingerprints differ, in words."""
    if not isinstance(then, Mapping):
        return 'it does not say which it had'
    if then.get('images') != now['images']:
        return f'{then.get("images")} then, {now["images"]} now'
    return f'{now["images"]} as then, but with other names or labels, or in another order'


def _names_and_labels(source: Any) -> tuple[list[str], Any]:
    """The names of a reader or set, if it has them, and its labels, an array [N], or None."""
    samples, labels = getattr(source, 'samples', None), getattr(source, 'targets', None)
    names: list[str] = []
    if isinstance(samples, list) and samples and isinstance(samples[0], tuple):  # (path, label)
        root = len(str(source.root))
        names, labels = [path[root:].lstrip(os.sep) for path, _ in samples], [label for _, label in samples]
    elif isinstance(samples, np.ndarray):  # of tars: (member, tar or None, the tar in it that has the member or None)
        columns = (column.tolist() for column in samples.T)
        names = [f'{tar}/{within and within.name}/{m.name}' for m, tar, within in zip(*columns, strict=True)]
    return names, None if labels is None else np.asarray(labels, dtype='<i8')
