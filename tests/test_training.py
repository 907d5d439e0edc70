"""Recipes and the runner, on the bundled images."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from test_data import ROOT
from torch.utils.data import Subset

from timm_attn.data.fashion_mnist import BUNDLED, FashionMNIST
from timm_attn.training.evaluate import top1, top1_on
from timm_attn.training.loaders import train_loader
from timm_attn.training.recipe import RECIPES, Recipe, load_recipe
from timm_attn.training.runner import fit, train

SHORT = Recipe(batch_size=50, epochs=2, opt='momentum', lr=0.05, warmup_epochs=0, smoothing=0.0, color_jitter=None)


def small(split: str) -> Subset:  # type: ignore[type-arg]
    class Transformed(Subset):  # type: ignore[type-arg]
        """timm's loaders set the transform of what they are given."""

        transform = property(lambda self: self.dataset.transform, lambda self, t: setattr(self.dataset, 'transform', t))

    return Transformed(FashionMNIST(split, BUNDLED), range(200))


@pytest.mark.parametrize('name', [p.stem for p in RECIPES.glob('*.yaml')])
def test_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.device_modules == ['timm_attn'] and recipe.opt == 'momentum'  # timm's sgd is Nesterov


def test_a_recipe_with_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / 'r.yaml').write_text('epochs: 3\nwarmup: 5\nlearning_rate: 0.1\n')
    with pytest.raises(ValueError, match='keys that the runner does not know: learning_rate, warmup'):
        load_recipe(str(tmp_path / 'r.yaml'))
    (tmp_path / 'n.yaml').write_text('epochs: 3\n')
    with pytest.raises(ValueError, match='n.yaml has no lr'):
        load_recipe(str(tmp_path / 'n.yaml'))
    (tmp_path / 'l.yaml').write_text('- 1\n')
    with pytest.raises(ValueError, match='must be a mapping'):
        load_recipe(str(tmp_path / 'l.yaml'))
    with pytest.raises(FileNotFoundError, match="no recipe 'nope': name a YAML file or one of fashion_mnist"):
        load_recipe('nope')


def run() -> tuple[torch.nn.Module, list[dict[str, float]]]:
    torch.manual_seed(3)
    timm.utils.random_seed(3)
    model = timm.create_model('cifar_resnet20_simam', num_classes=10)
    rows = list(fit(model, train_loader(small('train'), timm.data.resolve_model_data_config(model), SHORT), SHORT))
    return model, rows


def test_training_learns_and_repeats() -> None:
    model, rows = run()
    again, _ = run()
    assert rows[1]['loss'] < rows[0]['loss'] and [r['epoch'] for r in rows] == [1, 2]
    assert rows[0]['lr'] == 0.05 and rows[1]['lr'] == pytest.approx(0.025)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_runner_leaves_a_checkpoint_and_a_table(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, BUNDLED, tmp_path / 'data'], check=True, capture_output=True)
    recipe = Recipe(**{**vars(load_recipe('fashion_mnist')), 'epochs': 1, 'batch_size': 100})
    weights = train(recipe, 'cifar_resnet20', tmp_path / 'data', tmp_path / 'out')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['last.safetensors', 'summary.csv']
    with open(tmp_path / 'out' / 'summary.csv', newline='') as f:
        (row,) = csv.DictReader(f)
    model = timm.create_model('cifar_resnet20')
    model.load_state_dict(load_file(weights), strict=True)
    cfg = dict(input_size=(3, 28, 28), mean=recipe.mean, std=recipe.std, crop_pct=1.0)
    model.pretrained_cfg = model.default_cfg = {**model.default_cfg, **cfg}
    assert top1_on(model, FashionMNIST('validation')) == pytest.approx(float(row['top1']), abs=0.11)


def test_top1_of_known_answers() -> None:
    class Known(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(x.long(), 4).float()

    labels = torch.tensor([0, 1, 2, 3])
    assert top1(Known(), [(labels, labels), (labels, torch.tensor([0, 1, 0, 0]))]) == 75.0
    with pytest.raises(ValueError, match='no images'):
        top1(Known(), [])
