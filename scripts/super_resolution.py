#!/usr/bin/env python3
"""Super-resolution in little: SRResNet without and with BAM on a folder of photographs, tested on scikit-image's.

    python scripts/super_resolution.py /usr/share/backgrounds/mate/nature --output OUT

The photographs (here those of Debian's package mate-backgrounds) are reduced to 420 pixels. Each net is trained by the
recipe bam_sr with three seeds, on one core, and measured on five photographs that it has not seen: PSNR and SSIM of the
luma, beside those of MATLAB's bicubic. A file for each training goes to results/downstream, those that are there are
kept, and the picture of the first seed to docs/super_resolution.png.
"""

import argparse
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from timm_attn.downstream.data.pictures import Pictures
from timm_attn.downstream.metrics.psnr import to_uint8
from timm_attn.downstream.recipe import load_task_recipe
from timm_attn.downstream.super_resolution import bicubic, compare
from timm_attn.downstream.train import train
from timm_attn.downstream.trained import load
from timm_attn.images import read_image, suffixes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'results' / 'downstream'
PICTURE = ROOT / 'docs' / 'super_resolution.png'
MODELS = ('srresnet', 'srresnet_bam')
SEEDS = (0, 1, 2)
SIDE = 420  # of a photograph to train on
TESTS = {
    'astronaut': data.astronaut,
    'cat': data.chelsea,
    'coffee': data.coffee,
    'motorcycle': lambda: data.stereo_motorcycle()[0],
    'rocket': data.rocket,
}
CROPS = {'astronaut': (8, 160), 'cat': (88, 96)}  # top and left of what the picture shows
CROP = 160


def prepare(photographs: Path, folder: Path) -> list[str]:
    """Writes the folders train and validation, and returns the names of the photographs."""
    for split in ('train', 'validation'):
        (folder / split).mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in photographs.iterdir() if path.suffix.lower() in suffixes())
    for file in files:
        image = read_image(file)
        image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / 'train' / f'{file.stem}.png')
    for name, picture in TESTS.items():
        pixels = picture()
        height, width = (length // 4 * 4 for length in pixels.shape[:2])
        Image.fromarray(pixels[:height, :width]).save(folder / 'validation' / f'{name}.png')
    return [file.name for file in files]


def measure(model: torch.nn.Module, tests: Pictures) -> dict[str, dict[str, float]]:
    """PSNR and SSIM of each picture, of the net and of bicubic."""
    found = {}
    for index in range(len(tests)):
        small, large = tests[index]
        with torch.inference_mode():
            made = to_uint8(model(small[None])[0])
        row = compare(made, to_uint8(large), bicubic(to_uint8(small)))
        found[Path(tests.name(index)).stem] = {key: round(value, 4) for key, value in row.items()}
    return found


def result(name: str, seed: int, folder: Path, output: Path) -> dict[str, Any]:
    """Trains a net and measures it."""
    start = time.process_time()
    weights = train(load_task_recipe('bam_sr', {'seed': seed}), name, folder, output, resume=True)
    seconds = time.process_time() - start
    model, recipe, _ = load(weights)
    pictures = measure(model, Pictures(folder, 'validation'))
    gains = [row['psnr'] - row['bicubic_psnr'] for row in pictures.values()]
    parameters = sum(p.numel() for p in model.parameters())
    updates = recipe.epochs * (recipe.train_num_samples or 0) // recipe.batch_size
    return dict(
        model=name, recipe='bam_sr', seed=seed, parameters=parameters, updates=updates, cpu_seconds=round(seconds),
        mean_gain=round(float(np.mean(gains)), 4), least_gain=round(min(gains), 4), pictures=pictures,
    )  # fmt: skip


def draw(folder: Path, output: Path) -> None:
    """Parts of the test pictures: small, bicubic, the nets of the first seed, real."""
    models = {name: load(output / f'{name}.seed{SEEDS[0]}' / 'last.safetensors')[0] for name in MODELS}
    rows = []
    for name, (top, left) in CROPS.items():
        tests = Pictures(folder, 'validation')
        small, large = tests[[Path(tests.name(i)).stem for i in range(len(tests))].index(name)]
        with torch.inference_mode():
            made = [to_uint8(model(small[None])[0]) for model in models.values()]
        coarse = np.kron(to_uint8(small), np.ones((4, 4, 1), np.uint8))
        parts = [coarse, bicubic(to_uint8(small)), *made, to_uint8(large)]
        rows.append(np.concatenate([part[top : top + CROP, left : left + CROP] for part in parts], axis=1))
    Image.fromarray(np.concatenate(rows)).save(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photographs', type=Path)
    parser.add_argument('--output', type=Path, required=True, help='the folder of the pictures and of the runs')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=MODELS, help='to run them side by side')
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.output / 'pictures'
    names = prepare(args.photographs, folder)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for name in args.models:
            file = RESULTS / f'{name}.seed{seed}.json'
            if file.exists():
                continue
            row = result(name, seed, folder, args.output / f'{name}.seed{seed}')
            about = dict(
                photographs=names,
                command=f'python scripts/super_resolution.py {args.photographs} --output OUT',
                date=datetime.date.today().isoformat(),
                hardware=f'1 core of an {platform.machine()} CPU',
                torch=torch.__version__,
            )
            file.write_text(json.dumps({**row, **about}, indent=1) + '\n', encoding='utf-8')
            print(json.dumps(row), flush=True)
    if all((args.output / f'{name}.seed{SEEDS[0]}' / 'last.safetensors').exists() for name in MODELS):
        draw(folder, args.output)


if __name__ == '__main__':
    main()
