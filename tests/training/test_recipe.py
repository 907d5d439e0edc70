"""The recipes against the papers' text, the vocabulary of timm's train.py, and the traps of that vocabulary."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import timm
from paper_recipe import processes_of, recipe_for
from timm.data import create_transform

from tests.support.timm_scripts import load_script
from timm_attn import zoo
from timm_attn.training.engine import make_optimizer, make_scheduler
from timm_attn.training.recipe import RECIPES, Recipe, load_recipe, recipe_of

NAMES = sorted(p.stem for p in RECIPES.glob('*.yaml'))


def stepwise(start: float, *falls: int, by: float = 0.1) -> Callable[[int], float]:
    return lambda t: start * by ** sum(t >= fall for fall in falls)


@dataclass(frozen=True)
class Text:
    """What a paper says: the learning rate at each of so many steps, an epoch or an iteration, and the decay."""

    rate: Callable[[int], float]
    steps: int
    decay: float
    batch: int
    an_epoch: int = 1  # steps an epoch


PAPERS = {
    # SimAM 4.2: 0.1, divided by 10 at 30, 60, 90 epochs, 100 epochs, batch 256 on 4 GPUs, decay 0.0001
    'simam_resnet_in1k': Text(stepwise(0.1, 30, 60, 90), 100, 1e-4, 256),
    'eca_resnet_in1k': Text(stepwise(0.1, 30, 60, 90), 100, 1e-4, 256),
    'bam_resnet_in1k': Text(stepwise(0.1, 30, 60), 90, 1e-4, 256),
    # SimAM 4.2: ResNet-18, half resolution, 50 epochs, 0.1 divided by 10 at 15, 30, 45
    'simam_lambda_in1k': Text(stepwise(0.1, 15, 30, 45), 50, 1e-4, 256),
    # SimAM 4.2 with the authors' 0.05 instead of the text's 0.5: cosine, 150 epochs, 4e-5
    'simam_mobilenetv2_in1k': Text(lambda e: 0.025 * (1 + math.cos(math.pi * (e + 1) / 150)), 150, 4e-5, 256),
    'eca_mobilenetv2_in1k': Text(lambda e: 0.045 * 0.98**e, 400, 4e-5, 96),
    # SimAM 4.1: 0.1, divided by 10 at 32,000 and 48,000 iterations, stopped at 64,000, batch 128, decay 0.0005
    'simam_cifar10': Text(stepwise(0.1, 32_000, 48_000), 64_000, 5e-4, 128, 500),
    'simam_cifar100': Text(stepwise(0.1, 32_000, 48_000), 64_000, 5e-4, 128, 500),
}


def departures(recipe: Recipe, text: Text, processes: int) -> list[str]:
    """In what the training that a recipe makes differs from a text: read off timm's optimiser and schedule."""
    found = []
    optimizer = make_optimizer(timm.create_model('cifar_resnet20_se'), recipe)
    if optimizer.defaults['nesterov']:
        found.append('Nesterov')
    if optimizer.defaults['momentum'] != 0.9:
        found.append('momentum')
    if {group['weight_decay'] for group in optimizer.param_groups} != {text.decay}:
        found.append('weight decay')
    updates = recipe.train_batches_per_epoch or text.an_epoch
    scheduler, epochs = make_scheduler(optimizer, recipe, updates)
    if len(epochs) * updates != text.steps:
        found.append('length')
    for count, epoch in enumerate(epochs):
        scheduler.step(epoch)
        rates = [group['lr'] for group in optimizer.param_groups]
        for step in range(count * updates, (count + 1) * updates):
            if rates != pytest.approx([text.rate(step)] * len(rates), rel=1e-9, abs=1e-15):
                found.append(f'rate at step {step}')
    if recipe.batch_size * processes != text.batch:
        found.append('batch')
    if recipe.smoothing or recipe.color_jitter or recipe.train_interpolation != 'bilinear' or recipe.hflip != 0.5:
        found.append('augmentation')
    return found


@pytest.mark.parametrize('name', PAPERS)
def test_a_recipe_is_the_papers_text(name: str) -> None:
    assert departures(load_recipe(name), PAPERS[name], processes_of(name)) == []


def test_every_recipe_of_a_paper_is_compared() -> None:
    assert set(NAMES) == set(PAPERS) | {'fashion_mnist', 'finetune'}


@pytest.mark.parametrize(
    ('name', 'change', 'departure'),
    [
        ('simam_resnet_in1k', dict(opt='sgd'), 'Nesterov'),
        ('simam_resnet_in1k', dict(opt_kwargs={}), 'weight decay'),
        ('simam_resnet_in1k', dict(warmup_epochs=5), 'rate at step 0'),
        ('simam_resnet_in1k', dict(sched='multistep', decay_milestones=[30, 60, 90]), 'rate at step 29'),
        ('simam_resnet_in1k', dict(smoothing=0.1), 'augmentation'),
        ('simam_mobilenetv2_in1k', dict(lr=0.5), 'rate at step 0'),
        ('simam_mobilenetv2_in1k', dict(cooldown_epochs=0), 'length'),
        ('simam_cifar100', dict(decay_milestones=[64, 96]), 'rate at step 31500'),
        ('simam_cifar10', dict(train_batches_per_epoch=390), 'length'),
    ],
)
def test_the_traps_are_seen(name: str, change: dict[str, Any], departure: str) -> None:
    assert departure in departures(load_recipe(name, change), PAPERS[name], processes_of(name))


@pytest.mark.parametrize('name', NAMES)
def test_a_recipe_begins_with_its_command(name: str) -> None:
    text = (RECIPES / f'{name}.yaml').read_text()
    comment = text[: text.index('device_modules')]
    for word in (f'--config {name}', f'--config {name}.yaml', 'Hardware: '):
        assert word in comment
    assert 'Expected' in comment or 'Result' in comment
    assert load_recipe(name).device_modules[0] == 'timm_attn' and load_recipe(name).opt == 'momentum'


@pytest.mark.parametrize('name', NAMES)
def test_the_vocabulary_is_that_of_train_py(name: str) -> None:
    parser = load_script('train.py').parser
    known = {action.dest: action.default for action in parser._actions}
    recipe = load_recipe(name)
    missing = {f.name for f in fields(Recipe)} - set(known)
    assert missing == {'attention_lr_scale'}
    for f in fields(Recipe):
        if f.name not in ('lr', 'attention_lr_scale', 'device', 'num_classes', 'device_modules', 'torchcompile'):
            assert getattr(Recipe(lr=1.0), f.name) == known[f.name], f.name
    parser.set_defaults(**vars(recipe))
    assert {k: v for k, v in vars(parser.parse_args([])).items() if k in vars(recipe)} == vars(recipe)


def test_images_of_the_recipes() -> None:
    recipe = load_recipe('simam_lambda_in1k')
    assert recipe.input_size == [3, 112, 112]
    import timm_attn.training.timm_patches  # noqa: F401

    train = create_transform((3, 32, 32), is_training=True, train_crop_mode='pad4', hflip=0.5, color_jitter=None)
    assert [type(t).__name__ for t in train.transforms][:2] == ['RandomCrop', 'RandomHorizontalFlip']
    from PIL import Image

    white = Image.new('RGB', (32, 32), 'white')
    borders = set()
    for _ in range(200):
        image = train(white)
        assert image.shape == (3, 32, 32)
        borders.add(int((image.amax(dim=(0, 1)) < image.max()).sum()))  # black columns at one side
    assert borders == set(range(5))
    assert 'RandomResizedCrop' in str(create_transform((3, 32, 32), is_training=True))


@pytest.mark.parametrize(
    ('model', 'recipe'),
    [
        ('resnet50_simam', 'simam_resnet_in1k'),
        ('resnext50_32x4d', 'simam_resnet_in1k'),
        ('resnet101_eca', 'eca_resnet_in1k'),
        ('resnet50_bam_mul', 'bam_resnet_in1k'),
        ('wide_resnet18_x1_5_bam', 'bam_resnet_in1k'),
        ('mobilenetv2_simam', 'simam_mobilenetv2_in1k'),
        ('mobilenetv2_eca', 'eca_mobilenetv2_in1k'),
        ('cifar_resnet56_bam', 'simam_cifar100'),
    ],
)
def test_the_recipe_of_a_model(model: str, recipe: str) -> None:
    assert recipe_for(model) == recipe


def test_every_model_but_squeezenet_has_a_recipe() -> None:
    without = []
    for name in zoo.names():
        try:
            assert recipe_for(name) in NAMES
        except ValueError as error:
            assert 'No paper says how it trained' in str(error)
            without.append(name)
    assert {name.partition('_bam')[0] for name in without} == {'squeezenet1_1'}


@pytest.mark.parametrize('recipe', [Recipe(lr=0.1), *map(load_recipe, NAMES)], ids=['defaults', *NAMES])
def test_what_is_shipped_is_valid(recipe: Recipe) -> None:
    assert recipe_of(vars(recipe), 'it') == recipe


BAD = {
    'epochs: 3\nwarmup: 5\nlearning_rate: 0.1\n': 'keys that the runner does not know: learning_rate, warmup',
    'epochs: 3\n': 'r.yaml has no lr',
    '- 1\n': 'must be a mapping',
    'lr: 0.1\n  x: [': 'is not YAML',
    'lr: 1e-3\n': "has lr: '1e-3', but it must be a number .YAML reads 1e-3 as a text: write 0.001",
    'lr: 0.1\nepochs: 1.5\n': 'has epochs: 1.5, but it must be an integer',
    'lr: 0.1\nepochs: true\n': 'has epochs: True, but it must be an integer',
    'lr: 0.1\nscale: [0.1, big]\n': r"has scale: \[0.1, 'big'\], but it must be a list, each item a number",
    'lr: 0.1\nmodel_kwargs: 3\n': 'has model_kwargs: 3, but it must be a mapping',
    'lr: 0.1\nsched: plateau\n': "has sched: 'plateau', but it must be one of 'cosine', 'step'",
    'lr: 0.1\nbatch_size: 0\n': 'has batch_size: 0, but it must be at least 1',
    'lr: 0.1\nepochs: 2\nlr: 10\n': "r.yaml is not YAML: line 3 has the key 'lr' again.$",
    'lr: 0.1\nmodel_kwargs: {a: 1, "a": 1}\n': "r.yaml is not YAML: line 2 has the key 'a' again.$",
    '{' * 3000: 'r.yaml is not YAML: it is nested too deeply.$',
    'lr: 0.1\nopt_kwargs: {eps: .inf}\n': 'has opt_kwargs: .*, but it must be .*finite numbers',
}


@pytest.mark.parametrize('text', BAD)
def test_a_bad_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / 'r.yaml').write_text(text)
    with pytest.raises(ValueError, match=BAD[text]):
        load_recipe(str(tmp_path / 'r.yaml'))


def test_no_recipe() -> None:
    with pytest.raises(FileNotFoundError, match="no recipe 'nope': name a YAML file or one of .*fashion_mnist"):
        load_recipe('nope')


def test_changes() -> None:
    assert load_recipe('fashion_mnist', dict(epochs=3)).epochs == 3
    with pytest.raises(ValueError, match='does not know: epoch'):
        load_recipe('fashion_mnist', dict(epoch=3))
    assert load_recipe('fashion_mnist').epochs == 12
