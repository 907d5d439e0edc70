#!/usr/bin/env python3
"""Takes trained weights into the package and writes their row of weights_manifest.json.

    python scripts/bundle_checkpoint.py cifar_resnet20_simam runs/cifar_resnet20_simam/last.safetensors \
        /usr/share/datasets/fashion-mnist --command "$COMMAND" --hardware '1 core of an x86-64 CPU'

The accuracies are measured here, on the complete test set and on the part of it that comes with the package.
"""

import argparse
import datetime
import json
from pathlib import Path

import timm
import torch
from measure_bundled import measure
from safetensors.torch import load_file

import timm_attn  # noqa: F401
from timm_attn.data.fashion_mnist import CLASSES
from timm_attn.files import json_text, write_json, write_whole
from timm_attn.training.recipe import recipe_of
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.publish import manifest_row
from timm_attn.weights.store import file_digest
from timm_attn.weights.trained import read_training_file

RECIPE, TAG = 'fashion_mnist', 'fmnist'
ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ROOT / 'weights_manifest.json'


def record(name: str, weights: Path, data: Path, command: str, hardware: str) -> Checkpoint:
    """The manifest row of a file of weights, measured."""
    recipe = recipe_of(read_training_file(weights)['recipe'], str(weights))  # of the run, whatever changed it
    today, trained = datetime.date.today(), datetime.date.fromtimestamp(weights.stat().st_mtime)
    cfg = dict(
        input_size=recipe.input_size,
        pool_size=[7, 7],
        mean=recipe.mean,
        std=recipe.std,
        interpolation=recipe.interpolation,
        crop_pct=recipe.crop_pct,
        num_classes=recipe.num_classes,
        label_names=list(CLASSES),
    )
    model = timm.create_model(name, num_classes=recipe.num_classes, pretrained_cfg=cfg)
    model.load_state_dict(load_file(weights), strict=True)
    measuring = 'python scripts/measure_bundled.py DIR'
    metrics = [
        dict(
            dataset='Fashion-MNIST',
            split=split,
            images=images,
            top1=round(top1, 2),
            status='measured',
            command=measuring,
            date=today.isoformat(),
        )
        for split, images, top1 in measure(model, data)
    ]
    training = dict(
        recipe=RECIPE, command=command, seed=recipe.seed, epochs=recipe.epochs, date=trained.isoformat(),
        hardware=hardware, torch=torch.__version__.partition('+')[0], timm=timm.__version__,
        selection='none: the last epoch',
    )  # fmt: skip
    return Checkpoint(
        name=name,
        tag=TAG,
        kind='bundled',
        file=f'{name}.{TAG}.safetensors',
        size=weights.stat().st_size,
        sha256=file_digest(weights),
        num_params=sum(p.numel() for p in model.parameters()),
        cfg=cfg,
        license='Apache-2.0',
        metrics=tuple(metrics),
        training=training,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name')
    parser.add_argument('weights', type=Path)
    parser.add_argument('data', type=Path, help='folder of the four idx files')
    parser.add_argument('--command', required=True, help='the command that trained them')
    parser.add_argument('--hardware', required=True)
    args = parser.parse_args()
    row = manifest_row(record(args.name, args.weights, args.data, args.command, args.hardware))
    manifest = json.loads(MANIFEST.read_text())
    rows = [r for r in manifest['checkpoints'] if (r['name'], r['tag']) != (args.name, TAG)]
    bundled_rows = sorted([row, *(r for r in rows if r['kind'] == 'bundled')], key=lambda r: r['name'])
    manifest['checkpoints'] = [*bundled_rows, *(r for r in rows if r['kind'] != 'bundled')]
    bundled = ROOT / 'timm_attn' / 'weights' / 'bundled' / row['file']
    write_whole(bundled, args.weights.read_bytes())
    write_json(MANIFEST, manifest)
    print(json_text(row), end='')


if __name__ == '__main__':
    main()
