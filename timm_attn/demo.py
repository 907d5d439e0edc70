"""The demo: a checkpoint by name and its accuracy, a picture, and attention put into a trained net and fine-tuned."""

import time
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.utils import random_seed
from torch import nn

from timm_attn import weights
from timm_attn.analysis import attention_maps
from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST
from timm_attn.figures.contact_sheet import Tile, contact_sheet
from timm_attn.training.engine import Engine
from timm_attn.training.evaluate import evaluate
from timm_attn.training.loaders import Loader, eval_loader, train_loader
from timm_attn.training.recipe import Recipe

MODEL = 'cifar_resnet20_simam'
START = 'cifar_resnet20_cbam.from_fmnist'
SPLIT = 'test, bundled part'  # as the manifest calls the images that come with the package
PICTURED = 7  # images on the picture, the first of as many classes, and the first that is taken for another
FINE_TUNING = Recipe(
    workers=0,
    batch_size=50,
    epochs=4,
    opt='momentum',
    lr=0.02,
    warmup_epochs=0,
    smoothing=0.0,
    scale=[0.75, 1.0],
    ratio=[0.9, 1.1111],
    color_jitter=None,
    train_interpolation='bilinear',
)


def run_demo(picture: Path) -> None:
    """Runs it all without a network, prints what it measures, writes the picture as PNG.

    Raises:
        FileNotFoundError: there is no folder for the picture.
        RuntimeError: the bundled checkpoint is missing or damaged.
    """
    if not picture.parent.is_dir():
        raise FileNotFoundError(f'There is no folder {picture.parent} for the picture.')
    start = time.perf_counter()
    random_seed(0)
    test = FashionMNIST('validation')
    model = timm.create_model(MODEL, pretrained=True)
    checkpoint = weights.find_checkpoint(MODEL)
    print(f'1. {checkpoint.full_name} from the package, {checkpoint.num_params:,} parameters, sha256 verified')
    claimed = next(m['top1'] for m in checkpoint.metrics if m['split'] == SPLIT)
    tests = eval_loader(test, resolve_model_data_config(model))
    measured = evaluate(model, tests)['top1']
    print(f'   Fashion-MNIST, {len(test):,} test images: top-1 {measured:.2f} % (manifest: {claimed:.2f} %)')
    draw(model, test, picture)
    model = timm.create_model(START, pretrained=True)
    print(f'2. {START}: CBAM in a net trained without attention, which keeps what it learned')
    plain = timm.create_model(START.partition('_cbam')[0], pretrained=True)
    top1 = [evaluate(net, tests)['top1'] for net in (plain, model)]
    print(f'   the plain net: top-1 {top1[0]:.2f} %, with CBAM at the start: top-1 {top1[1]:.2f} %')
    print('   a new head, and all of it fine-tuned on 1,000 images of the set that the plain net was trained on')
    fine_tune(model, tests)
    print(f'3. predictions and attention of the checkpoint: {picture}')
    print(f'done in {time.perf_counter() - start:.0f} s')


def fine_tune(model: nn.Module, tests: Loader) -> None:
    """Resets the classifier and trains the whole net, printing the accuracy after each epoch."""
    model.reset_classifier(len(CLASSES))  # type: ignore[operator]
    chance = 100 / len(CLASSES)
    print(f'   fresh head: top-1 {evaluate(model, tests)["top1"]:.1f} % (chance is {chance:.0f} %)')
    loader = train_loader(FashionMNIST('train'), resolve_model_data_config(model), FINE_TUNING)
    engine = Engine(model, loader, FINE_TUNING)
    for epoch in engine.epochs:
        row = engine.epoch(epoch)
        print(f'   epoch {row["epoch"]}: loss {row["loss"]:.3f}, top-1 {evaluate(model, tests)["top1"]:.1f} %')


def draw(model: nn.Module, test: FashionMNIST, picture: Path) -> None:
    """Some test images, one a mistake, their predictions, and the attention of the last layer at full resolution."""
    transform: Any = create_transform(**resolve_model_data_config(model))
    everything = torch.stack([transform(test.image(i)) for i in range(len(test))])
    with torch.inference_mode():
        outputs = torch.cat([model.eval()(batch) for batch in everything.split(100)])
    labels = torch.tensor(test.labels)
    mistakes = (outputs.argmax(dim=1) != labels).nonzero()[:1, 0].tolist()
    chosen = [int((labels == c).nonzero()[0]) for c in range(PICTURED)] + mistakes
    images = everything[chosen]
    probabilities, classes = outputs[chosen].softmax(dim=1).max(dim=1)
    maps = attention_maps(model, images)
    layer = [path for path, weight in maps.items() if weight.shape[-2:] == images.shape[-2:]][-1]
    attention = maps[layer].mean(dim=1)  # (n, H, W)
    tiles = [
        Tile(
            test.image(index),
            attention[row].numpy(),
            f'{CLASSES[classes[row]]} {100 * probabilities[row]:.0f} %',
            f'true: {CLASSES[labels[index]]}',
            wrong=bool(classes[row] != labels[index]),
        )
        for row, index in enumerate(chosen)
    ]
    contact_sheet(tiles, f'{MODEL}: prediction and attention at {layer}, mean over channels').save(picture)
