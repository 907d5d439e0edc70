"""The text of `timm-attn list`, `timm-attn info` and `timm-attn places`."""

import difflib
import fnmatch
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch
from torch import nn

from timm_attn import from_tags, weights, zoo
from timm_attn.attach.spots import At, find_spots
from timm_attn.attention import ATTENTION, Attention, attention_layers


def require(full_name: str) -> str:
    """The name itself, if the zoo has it; a tag may follow it.

    Raises:
        ValueError: it does not; the message names the closest ones.
        RuntimeError: it has no checkpoint of that tag.
    """
    name, _, tag = full_name.partition('.')
    if name in zoo.names():
        if tag and full_name not in timm.models.get_arch_pretrained_cfgs(name):
            weights.find_checkpoint(name, tag)
        return full_name
    close = difflib.get_close_matches(name, zoo.names(), n=3)
    hint = f'did you mean {" or ".join(close)}? ' if close else ''
    raise ValueError(f'Unknown model {name!r}: {hint}`timm-attn list` shows all {len(zoo.names())}.')


def listing(pattern: str = '*') -> list[str]:
    """The names that match a glob, each with the tags of its checkpoints, what `pretrained=True` does, and its start.

    Raises:
        ValueError: none does.
    """
    found = fnmatch.filter(zoo.names(), pattern)
    if not found:
        raise ValueError(f'No model matches {pattern!r}: `timm-attn list` shows all {len(zoo.names())}.')
    said = {name: [f'{c.tag} {c.row.state}' for c in weights.checkpoints_of(name)] + _starts(name) for name in found}
    return [f'{name}  [{", ".join(said[name])}]' if said[name] else name for name in found]


def description(full_name: str) -> list[str]:
    """A model in words: parameters, attention layers and their equation, input, checkpoints; with a tag, that one."""
    name = require(full_name).partition('.')[0]
    model = timm.create_model(full_name, device='meta')
    cfg: Any = model.default_cfg
    lines = [f'{name}: {inspect.getdoc(timm.model_entrypoint(name))}']
    lines.append(f'parameters: {sum(p.numel() for p in model.parameters()):,}')
    lines.append(f'input: {cfg["input_size"]}, mean {cfg["mean"]}, std {cfg["std"]}, {cfg["num_classes"]} classes')
    layers = attention_layers(model)
    if layers:
        path, layer = next(iter(layers.items()))
        lines.append(f'attention: {len(layers)} x {type(layer).__name__}, the first at {path}')
        lines.append(f'  {(inspect.getdoc(layer) or "").splitlines()[0]}')
        lines += [f'  {line}' for line in repr(layer).splitlines()]
    for c in (c for c in weights.checkpoints_of(name) if full_name in (name, c.full_name)):
        lines.append(f'checkpoint {c.full_name}: {c.row.state}, licence {c.license or "none named"}')
        lines += [f'  {_metric(m)}' for m in c.metrics]
    tagged = (full for full in timm.models.get_arch_pretrained_cfgs(name) if full_name in (name, full))
    starts = [full for full in tagged if f'.{from_tags.PREFIX}' in full]
    return [*lines, *(f'start from the weights of the plain net: {full}' for full in starts)]


def _starts(name: str) -> list[str]:
    """The default `from_` tag of a name, if it has any."""
    return [f'start {full.partition(".")[2]}' for full in timm.list_pretrained(f'{name}.{from_tags.PREFIX}*')]


def places(name: str) -> Iterator[str]:
    """Where attention can go in a model of timm or of the zoo, way by way of attach; nothing is built with values.

    Raises:
        ValueError: there is no such model.
    """
    if not timm.is_model(name.partition('.')[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f'Unknown model {name!r}{": did you mean " if close else ""}{" or ".join(close)}.')
    with torch.device('meta'):
        model = timm.create_model(name)
    for site in dict.fromkeys(row.site for row in ATTENTION.values()):
        keys = [key for key, row in ATTENTION.items() if row.site == site]
        yield f'attach(model, {" | ".join(map(repr, keys))})'
        yield from _spots(model, ATTENTION[keys[0]], None)
    yield "attach(model, any of them, at='stages')"
    yield from _spots(model, ATTENTION['eca'], 'stages')


def _spots(model: nn.Module, row: Attention, at: At | None) -> Iterator[str]:
    try:
        try:
            spots, skipped = find_spots(model, row, at, False, None)
        except ValueError as error:
            if 'replace=True puts' not in str(error):
                raise
            yield f'  with replace=True ({error})'
            spots, skipped = find_spots(model, row, at, True, None)
    except ValueError as error:
        yield f'  {error}'
        return
    yield from (f'  {spot.path}  {spot.how}, {spot.channels} channels' for spot in spots)
    yield from (f'  {path}  skipped: {why}' for path, why in skipped.items())


def _metric(row: Mapping[str, Any]) -> str:
    top5 = f', top-5 {row["top5"]:.2f} %' if 'top5' in row else ''
    return (
        f'{row["dataset"]} {row["split"]} ({row["images"]:,} images): top-1 {row["top1"]:.2f} %{top5}, {row["status"]}'
    )
