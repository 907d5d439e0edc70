#!/usr/bin/env python3
"""Draws the pictures of README and docs from the bundled checkpoints and images; needs the extra `plots`.

Each picture is what the `timm-attn` command of its row writes, packed a little tighter.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from PIL import Image

from timm_attn.cli import main as timm_attn
from timm_attn.data.fashion_mnist import BUNDLED, CLASSES, FashionMNIST
from timm_attn.demo import draw
from timm_attn.reports.net import load_net
from timm_attn.weights import checkpoints

from fashion_mnist_to_tar import write_tar  # isort: skip
from site_figures import draw_sites  # isort: skip

DOCS = Path(__file__).resolve().parents[1] / 'docs'
SAMPLES, GALLERY = DOCS / 'samples', DOCS / 'gallery'
NET, PLAIN = 'cifar_resnet20_simam', 'cifar_resnet20'
EXPLAINED = ('ankle boot',)  # the first image of each
CURVES = ('selectivity', 'profile', 'cost')
# The layer that the sheet of an attention shows, where it is not the last one: maps of full size say more
LAYERS = {'cbam': 'layer1.2.block_attn', 'simam': 'layer1.2.conv_attn'}
DISAGREED = 1  # the first images on which the two nets disagree


def samples() -> tuple[list[Path], list[Path]]:
    """Writes the sample pictures, named by their true class: those to explain, and those the nets disagree on."""
    test = FashionMNIST('validation')
    chosen = [int((test.labels == CLASSES.index(name)).argmax()) for name in EXPLAINED]
    best = []
    for net in (load_net(NET), load_net(PLAIN)):
        images = torch.cat([net.prepare(test.image(i)) for i in range(len(test))])
        with torch.inference_mode():
            best.append(torch.cat([net.model(batch).argmax(dim=1) for batch in images.split(100)]))
    disagreed = (best[0] != best[1]).nonzero()[:DISAGREED, 0].tolist()
    SAMPLES.mkdir(parents=True, exist_ok=True)
    files = []
    for i in (*chosen, *disagreed):
        files.append(SAMPLES / f'{CLASSES[test.labels[i]].replace(" ", "-")}_{i}.png')
        test.image(i).save(files[-1])
    return files[: len(chosen)], files[len(chosen) :]


def commands(explained: Sequence[Path], disagreed: Sequence[Path], images: Path, out: Path) -> list[list[object]]:
    """The arguments of `timm-attn`, one row for one picture or several."""
    bundled = [c.name for c in checkpoints() if c.kind == 'bundled' and c.name != PLAIN]
    layers = {f'{PLAIN}_{key}': ['--layer', path] for key, path in LAYERS.items()}
    classes = ['--classes', '1_trouser', '5_sandal', '8_bag']
    return [
        *(['explain', name, *explained, *layers.get(name, []), '--output', out] for name in bundled),
        ['explain', NET, *disagreed, '--against', PLAIN, '--output', out],
        ['selectivity', PLAIN, images, '--against', NET, '--output', out / 'selectivity.png'],
        ['profile', f'{PLAIN}_eca', images, *classes, '--output', out / 'profile.png'],
        ['cost', 'cifar_resnet20_cbam', '--output', out / 'cost.png'],
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, images = Path(folder), Path(folder) / 'validation.tar'
        write_tar(BUNDLED, 'validation', images)
        for argv in commands(*samples(), images, out):
            if timm_attn([str(a) for a in argv]):
                raise SystemExit(1)
        draw(timm.create_model(NET, pretrained=True), FashionMNIST('validation'), out / 'demo.png')
        for picture in sorted(out.glob('*.png')):
            image = Image.open(picture).convert('RGB')
            if picture.stem in CURVES:  # a palette would change the colours of maps
                image = image.quantize(256)
            image.save(GALLERY / picture.name, optimize=True)
    draw_sites(GALLERY)
    total = sum(f.stat().st_size for f in DOCS.rglob('*.png'))
    print(f'{total / 1000:.0f} kB in {DOCS}')


if __name__ == '__main__':
    main()
