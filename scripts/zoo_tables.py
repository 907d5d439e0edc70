"""The tables of the zoo's names, parameters and checkpoints."""

import functools

import timm
from markdown_tables import table

from timm_attn import ATTENTION, BACKBONES, zoo
from timm_attn.weights import checkpoints
from timm_attn.weights.manifest import Checkpoint


@functools.cache
def parameters(name: str) -> int:
    """The trainable parameters of a model."""
    return sum(p.numel() for p in timm.create_model(name, device='meta').parameters())


def zoo_table() -> str:
    """A row per backbone, a column per attention: parameters, empty where there is no such name."""
    rows = []
    for stem, backbone in BACKBONES.items():
        pairs = [f'{stem}_{key}' if row.site in backbone.sites else None for key, row in ATTENTION.items()]
        names = [backbone.timm or stem, *pairs]
        rows.append([f'`{stem}`', *(f'{parameters(n):,}' if n else '' for n in names)])
    return table(['backbone', 'none', *(f'`{key}`' for key in ATTENTION)], rows)


def checkpoint_table(*keys: str) -> str:
    """A row per checkpoint, the default of a name first; with `keys` those of nets with these attentions only."""
    found = [c for c in checkpoints() if not keys or attention_of(c.name) in keys]
    head = ['name', 'data', 'top-1 %', 'whose', 'licence', '`pretrained=True`']
    return table(head, [_row(c) for c in found])


def attention_of(name: str) -> str | None:
    """The attention of a name of the zoo."""
    return next((key for stem in BACKBONES for key in ATTENTION if name == f'{stem}_{key}'), None)


def _row(checkpoint: Checkpoint) -> list[str]:
    best = checkpoint.metrics[0]
    origin = checkpoint.origin.get('repository', '').removeprefix('https://github.com/')
    return [
        f'`{checkpoint.full_name}`',
        best['dataset'],
        f'{best["top1"]:.2f} {best["status"]}',
        f'[{origin}](https://github.com/{origin})' if origin else 'ours',
        checkpoint.license or 'none named',
        f'{checkpoint.row.state} ({checkpoint.row.verified})',
    ]


def without_weights() -> str:
    """The backbones of which no name has weights or a plain net to start from."""
    loaded = {name.partition('.')[0] for name in timm.list_pretrained()}
    without = {stem: [n for n in zoo.names() if n == stem or n.startswith(f'{stem}_')] for stem in BACKBONES}
    return ', '.join(f'`{stem}`' for stem, names in without.items() if not loaded.intersection(names))
