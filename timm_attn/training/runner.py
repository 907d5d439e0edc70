"""The training loop of a recipe over timm's data, optimisers, schedulers and task."""

import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.data import create_dataset, resolve_data_config
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler_factory import scheduler_kwargs
from timm.task import ClassificationTask
from timm.utils import random_seed
from torch import nn
from tqdm import tqdm

from timm_attn.training.evaluate import top1
from timm_attn.training.loaders import Loader, eval_loader, train_loader
from timm_attn.training.recipe import Recipe


def fit(model: nn.Module, loader: Loader, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Trains the model in place; after each epoch yields its number, mean loss, last learning rate and seconds."""
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(recipe), **recipe.opt_kwargs)
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(recipe), updates_per_epoch=len(loader))
    device = next(model.parameters()).device
    task = ClassificationTask(model, criterion_kwargs=dict(smoothing=recipe.smoothing), device=device, verbose=False)
    for epoch in range(epochs):
        start, losses = time.perf_counter(), 0.0
        task.train()
        lr = optimizer.param_groups[0]['lr']
        for images, labels in (bar := tqdm(loader, desc=f'epoch {epoch + 1}/{epochs}', leave=False)):
            if recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = task(images, labels)['loss']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item()
            bar.set_postfix(loss=f'{loss.item():.3f}', refresh=False)
        scheduler.step(epoch + 1)
        seconds = round(time.perf_counter() - start, 1)
        yield dict(epoch=epoch + 1, lr=lr, loss=losses / len(loader), seconds=seconds)


def train(recipe: Recipe, model_name: str, data_dir: Path, output: Path) -> Path:
    """Trains a model from scratch and returns the file of its last epoch's weights.

    Args:
        data_dir: the folder in which the recipe's splits lie, as timm's create_dataset takes them.
        output: gets summary.csv, a row an epoch, and last.safetensors; each file appears only when complete.
    """
    random_seed(recipe.seed)
    model = timm.create_model(model_name, num_classes=recipe.num_classes, drop_rate=recipe.drop, **recipe.model_kwargs)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    data_config = resolve_data_config(vars(recipe), model=model)
    trained_on, tested_on = (
        create_dataset(recipe.dataset, root=str(data_dir), split=split, is_training=split == recipe.train_split)
        for split in (recipe.train_split, recipe.val_split)
    )
    tests = eval_loader(tested_on, data_config)
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for row in fit(model, train_loader(trained_on, data_config, recipe), recipe):
        rows.append({**row, 'top1': round(top1(model, tests), 2)})
        print(', '.join(f'{k} {v:.4g}' for k, v in rows[-1].items()), flush=True)
        _write_csv(output / 'summary.csv', rows)
    weights = output / 'last.safetensors'
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, f'{weights}.partial')
    os.replace(f'{weights}.partial', weights)
    return weights


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    partial = path.with_suffix('.partial')
    with partial.open('w', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
