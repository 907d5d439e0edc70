"""The places that `at` names: by the table, behind stages, or by paths and classes."""

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from timm_attn.attach.blocks import SLOTTED
from timm_attn.attach.measure import Skipped
from timm_attn.attach.places import Place, find_place
from timm_attn.attach.spot import Spot, child, is_attention, is_held
from timm_attn.attention import Attention, AttentionLayer

At = str | type[nn.Module] | Sequence[str | type[nn.Module]]


def by_table(model: nn.Module, row: Attention, replace: bool, skipped: Skipped) -> Iterator[Spot]:
    """The places in the blocks of the table, and those of blocks.py; what is left out goes to `skipped`.

    Raises:
        ValueError: a block has attention of its own, and replace is False.
    """
    siblings: dict[nn.Module, str] = {}
    blocks = set()
    for path, block in model.named_modules():
        cls: Any = SLOTTED.get(type(block), type(block))
        place = find_place(block)
        if not hasattr(cls, 'slots') and place is None:
            continue
        blocks.add(block)
        above = path.rpartition('.')[0]
        siblings.update((m, f'{above}.{name}') for name, m in model.get_submodule(above).named_children())
        found = list(_in_block(path, block, cls, place or Place(), row, replace))
        yield from found
        if not found and replace:
            skipped[path] = 'no attention to replace'
        elif not found:
            skipped[path] = f'{type(block).__name__} has no place for {row.title}'
    for other, path in siblings.items():
        if holds_block(other) and not blocks.intersection(other.modules()):
            skipped[path] = f'no row for {type(other).__name__} in the table of places'


def _in_block(path: str, block: nn.Module, cls: Any, place: Place, row: Attention, replace: bool) -> Iterator[Spot]:
    slots = getattr(cls, 'slots', ())
    names = (*place.own, *(slot.attr for slot in slots))
    held = {name: layer for name in names if is_held(layer := child(block, name)[2])}
    if replace:
        yield from (Spot(f'{path}.{name}', *child(block, name), replace=True) for name in held)
        return
    for name, layer in held.items():
        if not isinstance(layer, AttentionLayer):
            raise ValueError(
                f'{path}: the slot {name!r} of {type(block).__name__} already holds {type(layer).__name__}. '
                f'replace=True puts {row.title} there instead; or use the plain net (resnet50 for seresnet50).'
            )
    for slot in slots:
        if slot.site == row.site:
            channels = _channels(block.get_submodule(slot.source))
            yield Spot(f'{path}.{slot.attr}', *child(block, slot.attr), channels=channels, cls=cls)
    target = _target(block, row.site, place)
    if target is not None and not slots:
        yield Spot(f'{path}.{target}', *child(block, target))


def _target(block: nn.Module, site: str, place: Place) -> str | None:
    """The path in a block that an attention of a site fills or follows."""
    if site == 'block':
        return place.block
    return next((name for name in place.conv if site == 'conv' and is_held(child(block, name)[2])), None)


def _channels(source: Any) -> int:
    channels: int = source.out_channels if isinstance(source, nn.Conv2d) else source.num_features
    return channels


def by_stages(model: nn.Module, skipped: Skipped) -> Iterator[Spot]:
    """Every stage that timm names, from the first one with a block on."""
    modules = dict(model.named_modules())
    infos: Any = getattr(model, 'feature_info', None) or ()
    named = [info for info in infos if info['module'] and info['module'] in modules]  # '' is no place: the whole net
    entries = {info['module']: info['num_chs'] for info in named}
    blocks = [path for path in entries if 'stem' not in path and holds_block(modules[path])]
    stem = list(entries)[: list(entries).index(blocks[0])] if blocks else []
    for path, channels in entries.items():
        if path in stem:
            skipped[path] = 'no block in it'
        else:
            yield Spot(path, *child(model, path), channels=channels)


def holds_block(module: nn.Module) -> bool:
    """Whether a module holds a block of the table or several layers with weights, as the end of a stem does not."""
    weighted = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in module.modules())
    return weighted > 1 or any(find_place(m) is not None for m in module.modules())


def by_paths(model: nn.Module, at: At, replace: bool) -> Iterator[Spot]:
    """The modules of a net at globs of paths or of some classes.

    Raises:
        ValueError: there are none, or one is an attention layer, or with replace=True is none.
        TypeError: a place is neither a path nor a class.
    """
    patterns = list(at) if isinstance(at, Iterable) and not isinstance(at, str | type) else [at]
    for odd in (pattern for pattern in patterns if not isinstance(pattern, str | type)):
        what = f'an instance of {type(odd).__name__}' if isinstance(odd, nn.Module) else repr(odd)
        raise TypeError(f"at must be globs of paths or classes, such as 'layer*' or nn.Conv2d, but has {what}.")
    inside = tuple(f'{path}.' for path, m in model.named_modules() if isinstance(m, AttentionLayer))
    known = {path: m for path, m in model.named_modules() if path and not path.startswith(inside or '!')}
    for path, block in list(known.items()):  # slots that are None are no modules
        names = [*getattr(find_place(block), 'own', ()), *(slot.attr for slot in getattr(block, 'slots', ()))]
        known.update((f'{path}.{n}', child(block, n)[2]) for n in names if hasattr(block, n))
    found: dict[str, nn.Module | None] = {}
    for pattern in patterns:
        if isinstance(pattern, str):
            matches = fnmatch.filter(known, pattern)
            close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or list(known)[:3]
            hint = f'no module at {pattern!r}; the closest are {", ".join(close)}'
        else:
            matches = [path for path, m in known.items() if isinstance(m, pattern)]
            hint = f'no module of class {pattern.__name__}'
        if not matches:
            raise ValueError(f'{type(model).__name__} has {hint}.')
        found.update((path, known[path]) for path in matches)
    for path, module in found.items():
        parent = model.get_submodule(path.rpartition('.')[0])
        place = find_place(parent)
        own = is_attention(module) or (place is not None and path.rpartition('.')[2] in place.own and is_held(module))
        if replace and not own:
            raise ValueError(f'{path} is {type(module).__name__}, no attention that could be replaced.')
        if own and not replace:
            raise ValueError(f'{path} already holds {type(module).__name__}: replace=True puts another there.')
        yield Spot(path, *child(model, path), replace=replace)
