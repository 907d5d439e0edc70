"""The steps of a training: batches, gradients, which norms train, what evaluation counts."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.images import CONFIG, MODEL, group_norm_net, rows, short
from timm_attn.data.datasets import Subset
from timm_attn.data.fashion_mnist import FashionMNIST
from timm_attn.training.engine import Engine
from timm_attn.training.evaluate import confusion, evaluate
from timm_attn.training.loaders import eval_loader, take_batch, train_loader
from timm_attn.training.recipe import Recipe
from timm_attn.training.runner import train
from timm_attn.training.splits import open_split


@pytest.mark.parametrize('changes', [{}, dict(workers=2), dict(train_img_sizes=[16], train_batches_per_epoch=7)])
def test_the_batches_are_known(changes: dict[str, Any], folders: Path) -> None:
    recipe = short(**changes)
    loader = train_loader(open_split(recipe, folders, 'train'), CONFIG, recipe)
    assert len(loader) == (recipe.train_batches_per_epoch or 5)
    samples = open_split(recipe, folders, 'train').reader.samples
    for _ in range(2):
        for _, labels in loader:
            batch = take_batch(loader)
            assert batch is not None and [samples[i][1] for i in batch] == labels.tolist()


def after_an_epoch(loader: Any, recipe: Recipe) -> dict[str, Tensor]:
    engine = Engine(group_norm_net(), loader, recipe)
    engine.epoch(0)
    return engine.model.state_dict()


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    dataset = Subset(FashionMNIST('train'), range(50))  # 20 + 20 + 10: the last update has fewer
    whole = after_an_epoch(eval_loader(dataset, CONFIG, 20), short(grad_accum_steps=1))
    parts = after_an_epoch(eval_loader(dataset, CONFIG, 10), short(grad_accum_steps=2))
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-4, atol=1e-6)


def test_the_head_alone(folders: Path, tmp_path: Path) -> None:
    train(short(epochs=1, pretrained=True), MODEL, folders, tmp_path / 'out', head_only=True, confusion_matrix=True)
    start, end = (
        timm.create_model(MODEL, pretrained=True).state_dict(),
        load_file(tmp_path / 'out' / 'last.safetensors'),
    )
    changed = {k for k in start if not torch.equal(start[k], end[k])}
    assert (end['fc.weight'] - start['fc.weight']).abs().max() > 0.1  # a new one: the folders' names are others
    assert changed == {'fc.weight', 'fc.bias'}
    header, *table = [line.split(',') for line in (tmp_path / 'out' / 'confusion.csv').read_text().splitlines()]
    counts = [[int(count) for count in row[1:]] for row in table]
    assert header[1:] == [row[0] for row in table] == sorted(p.name for p in (folders / 'train').iterdir())
    right, (row,) = sum(counts[i][i] for i in range(10)), rows(tmp_path / 'out')
    assert sum(map(sum, counts)) == 100 and right == float(row['top1'])


@pytest.mark.parametrize(
    'name', ['cifar_resnet20_simam', 'mobilenetv2_eca', 'cifar_preresnet20_cbam', 'cifar_densenet100_12_bam']
)
def test_no_norm_of_a_frozen_body_trains(name: str) -> None:
    loader = eval_loader(Subset(FashionMNIST('train'), range(4)), {**CONFIG, 'input_size': (3, 28, 28)})
    model = timm.create_model(name)
    Engine(model, loader, short(), head_only=True)._train_mode()
    assert model.training and not [n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]


def test_confusion() -> None:
    labels = torch.tensor([0, 1, 2, 2])

    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.long(), 3).float()

    counts = confusion(Known(), [(torch.tensor([0, 0, 2, 1]), labels)], 3)
    assert counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]


def test_top1_of_known_answers() -> None:
    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.long(), 4).float()

    labels = torch.tensor([0, 1, 2, 3])
    assert evaluate(Known(), [(labels, labels), (labels, torch.tensor([0, 1, 0, 0]))])['top1'] == 75.0
    with pytest.raises(ValueError, match='no images'):
        evaluate(Known(), [])


def test_compile_and_channels_last(folders: Path, tmp_path: Path) -> None:
    plain = short(epochs=1, channels_last=True)
    train(plain, MODEL, folders, tmp_path / 'plain')
    train(short(epochs=1, channels_last=True, torchcompile='aot_eager'), MODEL, folders, tmp_path / 'compiled')
    ours, theirs = (load_file(tmp_path / run / 'last.safetensors') for run in ('plain', 'compiled'))
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-4)
