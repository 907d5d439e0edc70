"""The images of a training: folders and tars, what cannot be read, what is held out, what is refused."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from timm.data import ImageDataset
from torch import nn

from tests.support.commands import ROOT
from tests.support.images import MODEL, refused, short
from timm_attn.cli import main
from timm_attn.data.fashion_mnist import BUNDLED
from timm_attn.training import checkpoint, runner, splits
from timm_attn.training.evaluate import evaluate
from timm_attn.training.fingerprint import IMAGES
from timm_attn.training.runner import train
from timm_attn.training.splits import held_out, names_of, open_split
from timm_attn.training.sweep import sweep
from timm_attn.training.validate import validate


def test_folders_that_cannot_be_trained_on(small: Path, tmp_path: Path) -> None:
    output = tmp_path / 'out'
    refused('There is no folder .*gone of images', tmp_path / 'gone', output)
    refused('2 classes: 0_t-shirt, 1_trouser', small, output, short(num_classes=10))
    refused('20 training images do not fill one batch of 50', small, output, short(batch_size=50))
    (small / 'validation' / '1_trouser').rename(small / 'validation' / 'trousers')
    refused(r"classes of 'train' and 'validation' differ: \['1_trouser', 'trousers'\]", small, output)
    (small / 'validation').rename(small / 'elsewhere')
    refused("small has no split 'validation', neither a folder nor a tar, only elsewhere, train", small, output)
    with pytest.raises(ValueError, match="has no split 'nosuch'"):
        held_out(short(train_split='nosuch'), small, 5)
    refused("must have a folder or tar for each of 'train' and 'validation'", small / 'train', output)
    (small / 'elsewhere').rename(small / 'validation')
    for file in (small / 'train' / '1_trouser').iterdir():
        file.unlink()
    refused(r'train has images of one class only \(0_t-shirt\)', small, output)
    (small / 'train' / '1_trouser').rmdir()
    refused(r'train has images of one class only \(0_t-shirt\)', small, output, short(dataset='torch/folder'))
    for file in (small / 'train' / '0_t-shirt').iterdir():
        file.unlink()
    refused('Found 0 images', small, output)


def test_a_dataset_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise URLError('no network')

    monkeypatch.setattr('torchvision.datasets.cifar.download_and_extract_archive', unreachable)
    recipe = short(dataset='torch/cifar100', dataset_download=True)
    with pytest.raises(
        ConnectionError, match=r'^torch/cifar100 is not in .*, and cannot be downloaded there: no network'
    ):
        open_split(recipe, tmp_path, 'train')


@pytest.mark.parametrize('dataset', ['', 'torch/folder'])
@pytest.mark.parametrize('place', ['train/run', 'train', 'train/0_t-shirt/a/b', 'validation/run', 'link/run'])
def test_an_output_among_the_images(place: str, dataset: str, small: Path) -> None:
    """Its files would be a class or images."""
    (small / 'link').symlink_to(small / 'validation')
    before = sorted(small.rglob('*'))
    with pytest.raises(ValueError, match='^The output .* lies in .*, from which images are read: choose one elsewhere'):
        train(short(dataset=dataset), MODEL, small, small / place)
    assert sorted(small.rglob('*')) == before


def test_an_output_beside_the_splits(small: Path) -> None:
    recipe, said = short(epochs=1, batch_size=10), 'from which images are read'
    train(recipe, MODEL, small, small / 'run')
    train(recipe, MODEL, small, small / 'validation' / 'run', holdout=4)  # which is not read then
    flat = small / 'train'
    with pytest.raises(ValueError, match=said):
        train(recipe, MODEL, flat, flat / 'run', holdout=4)
    with pytest.raises(ValueError, match=said):
        sweep(recipe, MODEL, small, small / 'train' / 'run', attn_kwarg='e_lambda', values=['0.1'])
    (small / 'validation').rename(small / 'val')
    with pytest.raises(ValueError, match=said):  # timm would take the new folder for the split
        train(recipe, MODEL, small, small / 'validation')
    assert {path.name for path in flat.iterdir()} == {'0_t-shirt', '1_trouser'} and not (small / 'validation').exists()


def test_tars_without_being_named(tmp_path: Path) -> None:
    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, BUNDLED, tmp_path], check=True, capture_output=True)
    assert len(open_split(short(), tmp_path, 'train')) == len(open_split(short(), tmp_path, 'validation')) == 1000


def test_an_image_costs_the_same_in_a_large_set(small: Path) -> None:
    images = open_split(short(), small, 'train')
    images.reader.samples *= 10_000
    images.unreadable = torch.zeros(len(images), dtype=torch.uint8)
    tracemalloc.start()
    images[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(images) > 100_000 and peak < 500_000  # bytes


def test_what_is_held_out_is_not_trained_on(folders: Path) -> None:
    trained, held = held_out(short(), folders, 30)
    assert len(trained) == 70 and len(held) == 30
    files = [set(names_of(part, range(len(part)))) for part in (trained, held)]
    assert not files[0] & files[1] and len(files[0] | files[1]) == 100
    with pytest.raises(ValueError, match='100 images cannot be held out of 100'):
        held_out(short(), folders, 100)


def test_a_share_is_held_out_of_a_flat_folder(small: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(short(epochs=1, batch_size=10))))
    command = ['train', '--config', tmp_path / 'r.yaml', '--model', MODEL, '--data-dir', small / 'train']
    command = [*map(str, command), '--output', str(tmp_path / 'out')]
    assert main(command) == 1 and 'use --holdout, such as --holdout 0.2' in capsys.readouterr().err
    for value in ('0', '-1', '1.5', 'nan', 'inf'):
        assert main([*command, '--holdout', value]) == 1
        assert f'a share between 0 and 1, but is {value}.' in capsys.readouterr().err
        assert not (tmp_path / 'out').exists()
    assert main([*command, '--holdout', '0.2']) == 0
    options = checkpoint.load(tmp_path / 'out' / 'last.pth.tar')['options']
    assert [options[key]['images'] for key in IMAGES] == [16, 4] and options['holdout'] == 0.2
    capsys.readouterr()
    assert main([*command, '--holdout', '4', '--resume']) == 1  # the same images, but said otherwise
    assert 'trained otherwise: holdout (0.2, now 4)' in capsys.readouterr().err
    assert main([*command, '--holdout', '0.2', '--resume']) == 0


def test_a_share_of_no_image(small: Path) -> None:
    with pytest.raises(ValueError, match='0 images cannot be held out of 20'):
        held_out(short(), small, 0.01)


class Cifar:
    """As torchvision's: one folder, and labels by `train`."""

    def __init__(self, train: bool) -> None:
        self.root, self.targets = 'data', [0, 1, 0] if train else [1, 0]

    def __len__(self) -> int:
        return len(self.targets)


@pytest.mark.parametrize('names', [('trainn', 'validation'), ('train', 'training'), ('train', 'train')])
def test_splits_of_the_same_images(names: tuple[str, str], tmp_path: Path, monkeypatch: Any) -> None:
    """timm takes any name but train and training for the test images of a torch/ set."""
    monkeypatch.setattr(splits, 'open_dataset', lambda name, root, split, **_: Cifar(split in ('train', 'training')))
    recipe = short(dataset='torch/cifar10', train_split=names[0], val_split=names[1])
    with pytest.raises(ValueError, match=f"'{names[0]}' and '{names[1]}' of 'torch/cifar10' have the same images"):
        splits.open_both(recipe, tmp_path)
    recipe = short(dataset='torch/cifar10')
    assert [len(dataset) for dataset in splits.open_both(recipe, tmp_path)] == [3, 2]


def test_splits_of_the_hub_share_a_cache(tmp_path: Path, monkeypatch: Any) -> None:
    class Reader:
        root, class_to_idx = str(tmp_path), dict(a=0, b=1)

        def __len__(self) -> int:
            return 4

    monkeypatch.setattr(splits, 'open_dataset', lambda *_, **__: ImageDataset('', reader=Reader()))
    assert len(splits.open_both(short(dataset='hfds/x'), tmp_path)[0]) == 4


@pytest.mark.parametrize('dataset', ['', 'folder', 'torch/folder'])
def test_every_folder_is_decoded_the_same_way(dataset: str, small: Path) -> None:
    for i, file in enumerate(sorted(small.glob('*/*/*'))):
        Image.fromarray(np.full((8, 8), 257 * i, dtype=np.uint16)).save(file)
    images = open_split(short(dataset=dataset), small, 'train')
    assert [images[i][0].getpixel((0, 0)) for i in range(20)] == [(i, i, i) for i in range(20)]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(opt_kwargs=dict(no_such=1)), 'cannot be used, TypeError'),
        (dict(scale=[0.5]), 'cannot be used, IndexError'),
        (dict(input_size=[28]), 'cannot be used, '),
        (dict(train_crop_mode='foo'), 'cannot be used, AssertionError: '),
        (dict(interpolation='foo'), "cannot be used, KeyError: 'foo'"),
        (dict(smoothing=2.0), 'cannot be used, AssertionError'),
        (dict(class_map='nosuch.txt'), 'cannot be used, AssertionError'),
        (dict(model_kwargs=dict(attn_kwargs=dict(e_lambda='x'))), "e_lambda must be a positive number, but got 'x'"),
        (dict(start_epoch=2), 'no epoch to train: start_epoch is 2, epochs 2'),
    ],
)
def test_values_that_timm_does_not_take(change: dict[str, Any], message: str, small: Path, tmp_path: Path) -> None:
    refused(message, small, tmp_path / 'out', short(batch_size=10, **change))


def test_classes_are_known_by_their_names(small: Path, tmp_path: Path, capsys: Any) -> None:
    """A checkpoint has them: other folders are other classes, and predictions are theirs."""
    recipe, output = short(epochs=1, batch_size=10), tmp_path / 'out'
    weights = train(recipe, MODEL, small, output)
    capsys.readouterr()
    picture = next((small / 'validation' / '1_trouser').iterdir())
    for file in (weights, output / 'last.pth.tar'):
        assert main(['predict', MODEL, str(picture), '--checkpoint', str(file)]) == 0
        said = capsys.readouterr().out.partition(': ')[2]
        assert sorted(part.split()[0] for part in said.split(', ')) == ['0_t-shirt', '1_trouser']
    for split in ('train', 'validation'):
        (small / split / '0_t-shirt').rename(small / split / '2_shirt')
    with pytest.raises(ValueError, match=r"was trained on: \['0_t-shirt', '2_shirt'\]"):
        validate(MODEL, small, weights=weights)
    with pytest.raises(
        ValueError, match=r"class_names \(\['0_t-shirt', '1_trouser'\], now \['1_trouser', '2_shirt'\]\)"
    ):
        train(recipe, MODEL, small, output, resume=True)


def test_the_head_is_new_where_the_classes_are_others(small: Path) -> None:
    trained = timm.create_model(MODEL, pretrained=True)
    labels = list(trained.pretrained_cfg['label_names'])
    for classes, kept in ((labels, True), (labels[::-1], False), ([str(i) for i in range(10)], False)):
        model: Any = runner.build(MODEL, short(pretrained=True), classes)
        assert torch.equal(model.fc.weight, trained.fc.weight) == kept
        assert torch.equal(model.conv1.weight, trained.conv1.weight)


def test_a_label_beyond_the_classes() -> None:
    """Of streamed data, which does not say its classes."""
    labels = torch.tensor([0, 5])
    with pytest.raises(ValueError, match='has the label 5, but the model has 3 classes'):
        evaluate(nn.Identity(), [(torch.zeros(2, 3), labels)])
