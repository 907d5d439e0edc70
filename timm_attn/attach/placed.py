"""Puts layers into their places, and keeps the record of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

from timm_attn.attach.identity import Started
from timm_attn.attach.spots import Skipped, Spot
from timm_attn.attach.wrappers import Attended, AttendedDrop, ChannelsLast
from timm_attn.warm_start.folds import words

_RECORD = '_attention_placements'  # of the model


class Placement(NamedTuple):
    """An attention layer in a net, a place that was left out, or weights that an identity start has scaled.

    Args:
        path: the layer's, or that of the place.
        how: 'scaled', 'skipped', or of a layer 'slot' (an empty child of the block, or one that blocks.py adds),
            'replaced', 'before' a drop_path, 'appended' to an nn.Sequential, 'wrapped' with the module that it follows.
        channels: of the layer's map; else None.
        note: what was replaced or followed, why the place was left out, or by how much the weights were scaled.
        factor: c of an identity start: the layer's map, and a stage's features that it ends, are c times the plain
            net's. None without one.
    """

    path: str
    how: str
    channels: int | None
    note: str = ''
    factor: float | None = None


def placements(model: nn.Module) -> list[Placement]:
    """Where attach has put attention layers, what it scaled and left out; none for a net it has not been used on."""
    found = []
    for prefix, module in model.named_modules():
        rows: Sequence[Placement] = vars(module).get(_RECORD, ())
        found += [row._replace(path='.'.join(filter(None, (prefix, row.path)))) for row in rows]
    return found


def record(
    model: nn.Module,
    spots: Sequence[Spot],
    layers: Sequence[nn.Module],
    started: Started,
    skipped: Skipped,
) -> None:
    """Adds to what placements tells."""
    paths = {module: path for path, module in model.named_modules()}
    rows = []
    for spot, layer, factor, gate in zip(spots, layers, started.factors, started.gates, strict=True):
        note = '' if spot.old is None else f'{spot.path}, {type(spot.old).__name__}'
        if gate is not None:
            note += f' of the mean gate {float(gate.mean()):.3g} ({words(gate)})'
        rows.append(Placement(paths[layer], spot.how, spot.channels, note, factor))
    scaled = {fold.path: fold.words for fold in started.folds}
    rows += [Placement(path, 'scaled', None, how) for path, how in scaled.items()]
    rows += [Placement(path, 'skipped', None, why) for path, why in skipped.items()]
    gone = {row.path for row in rows}  # what was replaced, and what was left out before
    earlier = [row for row in vars(model).get(_RECORD, ()) if row.path not in gone]
    vars(model)[_RECORD] = (*earlier, *rows)


def put(spots: Sequence[Spot], layers: Sequence[nn.Module]) -> Callable[[], None]:
    """Puts every layer into its place; the returned function takes them out again."""
    undos: list[Callable[[], None]] = []
    for spot, layer in zip(spots, layers, strict=True):
        undos.append(_put(spot, ChannelsLast(layer) if spot.channels_last else layer))

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo


def _put(spot: Spot, layer: nn.Module) -> Callable[[], None]:
    parent: Any = spot.parent
    old: Any = spot.old
    was, modules, attributes = type(parent), dict(parent._modules), dict(vars(parent))
    if spot.how == 'appended':
        old.append(layer)
        return lambda: old.__delitem__(-1)
    if spot.cls is not None:
        parent.__class__ = spot.cls  # the same modules and keys, a forward with the slots
        for slot in parent.slots:
            if not hasattr(parent, slot.attr):
                setattr(parent, slot.attr, None)
    new = layer
    if spot.how == 'before':
        new = AttendedDrop(nn.Identity() if old is None else old, layer)
    elif spot.how == 'wrapped':
        new = Attended(old, layer)
    setattr(parent, spot.name, new)

    def undo() -> None:  # an empty slot may be an attribute or a module that is None
        parent.__class__ = was
        parent._modules.clear()
        parent._modules.update(modules)
        vars(parent).clear()
        vars(parent).update(attributes)

    return undo
