"""Where a new attention goes in a built net."""

import difflib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn

from timm_attn.attach.blocks import SLOTTED
from timm_attn.attach.places import find_place
from timm_attn.attach.probe import Call, described, layout, probe
from timm_attn.attach.wrappers import Attended, ChannelsLast
from timm_attn.attention import Attention, AttentionLayer

At = str | type[nn.Module] | Sequence[str | type[nn.Module]]
Skipped = dict[str, str]  # path -> why

# timm's attention layers, by the names of their classes (several models have their own of one name)
_LAYERS = frozenset(
    'SEModule SqueezeExcite SqueezeExciteCl SEWithNorm EffectiveSEModule EseModule EcaModule CecaModule CbamModule '
    'LightCbamModule GatherExcite GlobalContext'.split()
)
_MAPS = 'An attention weights the channels of maps (N, C, H, W): choose a ConvNet, such as convnext_tiny or resnet50'


@dataclass
class Spot:
    """A place for one layer.

    Args:
        parent, name: the module and its child that is filled, replaced or followed; None for a slot that is empty.
        channels: None where only a forward pass tells.
        channels_last: whether the map is (N, H, W, C).
        cls: the class with the slot that the parent changes to, see SLOTTED.
    """

    path: str
    parent: nn.Module
    name: str
    old: nn.Module | None
    replace: bool = False
    channels: int | None = None
    channels_last: bool = False
    cls: type[nn.Module] | None = None

    @property
    def how(self) -> str:
        """'replaced', 'slot', 'before' a drop_path, 'appended' or 'wrapped'."""
        if self.replace:
            return 'replaced'
        if self.name.startswith('drop_path') or type(self.old) is DropPath:
            return 'before'
        if self.old is None or type(self.old) is nn.Identity:
            return 'slot'
        return 'appended' if is_sequence(self.old) else 'wrapped'


def is_sequence(module: nn.Module | None) -> bool:
    """Whether a module calls its children one by one, and only them."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_attention(module: Any) -> bool:
    return isinstance(module, AttentionLayer | ChannelsLast) or type(module).__name__ in _LAYERS


def find_spots(
    model: nn.Module, row: Attention, at: At | None, replace: bool, example: Tensor | None
) -> tuple[list[Spot], Skipped]:
    """The places that `at` names, their channels known, and what was left out; the net is unchanged.

    Raises:
        ValueError: there is none, or one of them is taken or cannot have an attention.
    """
    skipped: Skipped = {}
    if at is None:
        spots = list(_by_table(model, row, replace, skipped))
    elif at == 'stages':
        if replace:
            raise ValueError("replace=True needs the old layers' places: at=None or their paths, not at='stages'.")
        spots = list(_by_stages(model, skipped))
    else:
        spots = list(_by_paths(model, at, replace))
    ready = _measured(model, spots, skipped, at, example)
    if not ready:
        if at is None and not replace:  # would another way do?
            at_stages: Skipped = {}
            if not _measured(model, list(_by_stages(model, at_stages)), at_stages, 'stages', example):
                skipped, at = at_stages, 'stages'
        raise ValueError(_nothing(model, row, at, replace, skipped))
    for spot in ready:
        if not spot.replace and _is_taken(spot):
            raise ValueError(
                f'{spot.path} already holds {type(_held(spot)).__name__}: replace=True puts {row.title} there instead.'
            )
    return ready, skipped


def _by_table(model: nn.Module, row: Attention, replace: bool, skipped: Skipped) -> Iterator[Spot]:
    siblings: dict[nn.Module, str] = {}
    blocks = set()
    for path, block in model.named_modules():
        cls: Any = SLOTTED.get(type(block), type(block))
        slots, place = getattr(cls, 'slots', ()), find_place(block)
        if not slots and place is None:
            continue
        blocks.add(block)
        parent = model.get_submodule(path.rpartition('.')[0])
        siblings.update((m, f'{path.rpartition(".")[0]}.{n}') for n, m in parent.named_children())
        names = [*(place.own if place else ()), *(slot.attr for slot in slots)]
        held = {name: layer for name in names if is_held(layer := _child(block, name)[2])}
        foreign = next((name for name, layer in held.items() if not isinstance(layer, AttentionLayer)), None)
        if replace:
            yield from (Spot(f'{path}.{n}', *_child(block, n), replace=True) for n in held)
            if not held:
                skipped[path] = 'no attention to replace'
        elif foreign is not None:
            raise ValueError(
                f'{path}: the slot {foreign!r} of {type(block).__name__} already holds {type(held[foreign]).__name__}. '
                f'replace=True puts {row.title} there instead; or use the plain net (resnet50 for seresnet50).'
            )
        elif slots:
            for slot in slots:
                if slot.site == row.site:
                    channels = _channels(block.get_submodule(slot.source))
                    yield Spot(
                        f'{path}.{slot.attr}', block, slot.attr, _child(block, slot.attr)[2], False, channels, cls=cls
                    )
        elif place is not None and (target := _target(block, row.site, place)):
            yield Spot(f'{path}.{target}', *_child(block, target))
        else:
            skipped[path] = f'{type(block).__name__} has no place for {row.title}'
    for other, path in siblings.items():
        if not blocks.intersection(other.modules()) and any(isinstance(m, nn.Conv2d) for m in other.modules()):
            skipped[path] = f'no row for {type(other).__name__} in the table of places'


def _by_stages(model: nn.Module, skipped: Skipped) -> Iterator[Spot]:
    modules = dict(model.named_modules())
    infos: Any = getattr(model, 'feature_info', None) or ()
    entries = {info['module']: info['num_chs'] for info in infos if info['module'] in modules}
    blocks = [path for path in entries if 'stem' not in path and holds_block(modules[path])]
    stem = list(entries)[: list(entries).index(blocks[0])] if blocks else []
    for path, channels in entries.items():
        if path in stem:
            skipped[path] = 'no block in it'
        else:
            yield Spot(path, *_child(model, path), channels=channels)


def holds_block(module: nn.Module) -> bool:
    """Whether a module holds a block of the table or several layers with weights, as the end of a stem does not."""
    weighted = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in module.modules())
    return weighted > 1 or any(find_place(m) is not None for m in module.modules())


def _by_paths(model: nn.Module, at: At, replace: bool) -> Iterator[Spot]:
    inside = tuple(f'{path}.' for path, m in model.named_modules() if isinstance(m, AttentionLayer))
    known = {path: m for path, m in model.named_modules() if path and not path.startswith(inside or '!')}
    for path, block in list(known.items()):  # slots that are None are no modules
        names = [*getattr(find_place(block), 'own', ()), *(slot.attr for slot in getattr(block, 'slots', ()))]
        known.update((f'{path}.{n}', _child(block, n)[2]) for n in names if hasattr(block, n))
    found: dict[str, nn.Module | None] = {}
    for pattern in (at,) if isinstance(at, str | type) else at:
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
        yield Spot(path, *_child(model, path), replace=replace)


def _measured(
    model: nn.Module, spots: list[Spot], skipped: Skipped, at: At | None, example: Tensor | None
) -> list[Spot]:
    """The spots whose module runs once and gives a map, with their channels; the others are skipped, or refused where
    the user has named them."""
    unknown = [spot for spot in spots if spot.cls is None]
    if not unknown:
        return spots
    empty = [spot for spot in unknown if spot.old is None]
    for spot in empty:
        setattr(spot.parent, spot.name, nn.Identity())
    watched = {spot.path: spot.parent.get_submodule(spot.name) for spot in unknown}
    inner = [m for spot in unknown if at == 'stages' for _, m in _ends(watched[spot.path])]
    try:
        calls = probe(model, [*watched.values(), *inner], example)
    finally:
        for spot in empty:
            setattr(spot.parent, spot.name, None)
    last = getattr(model, 'output_fmt', 'NCHW') == 'NHWC'
    ready = [spot for spot in spots if spot.cls is not None]
    for spot in unknown:
        seen = calls[watched[spot.path]]
        found = layout(seen[0].output, spot.channels, last) if seen else None
        why = None
        if len(seen) > 1:
            raise ValueError(f'{spot.path} runs {len(seen)} times in a forward pass: one attention cannot follow it.')
        if not seen:
            why = 'does not run in a forward pass'
        elif found is None:
            why = f'gives {described(seen[0].output)}, no map'
        elif spot.how == 'wrapped' and seen[0].inputs != 1:
            why = f'takes {seen[0].inputs} inputs'
        if why is not None and at is not None and at != 'stages':
            raise ValueError(f'{spot.path} {why}. {_MAPS}, or another place.')
        if why is not None or found is None:
            skipped[spot.path] = why or ''
            continue
        spot.channels, spot.channels_last = found
        if at == 'stages':
            _end_inside(spot, calls)
        ready.append(spot)
    return ready


def _ends(stage: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a stage that may give its output: every nn.Sequential, then its children."""
    yield from ((path, m) for path, m in stage.named_modules() if path and is_sequence(m))
    yield from stage.named_children()


def _end_inside(spot: Spot, calls: Mapping[nn.Module, list[Call]]) -> None:
    """Moves a spot into its stage, to what gives the stage's output: the paths that timm knows (groups of layers for
    their learning rates) stay, and an nn.Sequential is appended to."""
    if spot.how != 'wrapped':
        return
    stage = spot.parent.get_submodule(spot.name)
    output = calls[stage][0].output
    for path, module in _ends(stage):
        if [(call.inputs, call.output is output) for call in calls.get(module, ())] == [(1, True)]:
            spot.path = f'{spot.path}.{path}'
            spot.parent, spot.name, spot.old = _child(stage, path)
            return


def _nothing(model: nn.Module, row: Attention, at: At | None, replace: bool, skipped: Skipped) -> str:
    """Why there is no place, and what to do."""
    net = type(model).__name__
    tokens = next((f'{path} {why}' for path, why in skipped.items() if 'gives' in why), None)
    if tokens:
        return f'{net} has no place for {row.title}: {tokens}. {_MAPS}.'
    if replace:
        return f'{net} has no attention that {row.title} could replace: leave replace=True out, or name places by at=.'
    if at == 'stages':
        return f"{net} has no stages that timm names (feature_info): name modules that return maps, as at='layer*'."
    if row.site == 'stage':
        return f"{net} has no place for {row.title}: name its stages, at='stages' for all, stages=('layer1',) for some."
    why = next((f'{path}: {why}' for path, why in skipped.items()), 'none of its blocks is in the table of places')
    return (
        f"{net} has no place for {row.title}: {why}. at='stages' follows every stage, at='layer*.conv2' such modules."
    )


def is_held(layer: Any) -> bool:
    """Whether a slot holds a layer."""
    return layer is not None and type(layer) is not nn.Identity


def _held(spot: Spot) -> nn.Module | None:
    """What a spot holds: the layer that ends a sequence, else its module."""
    return list(spot.old.children())[-1] if is_sequence(spot.old) and len(list(spot.old.children())) else spot.old  # type: ignore[union-attr]


def _is_taken(spot: Spot) -> bool:
    return (
        (spot.cls is not None and spot.old is not None) or is_attention(_held(spot)) or isinstance(spot.old, Attended)
    )


def _target(block: nn.Module, site: str, place: Any) -> str | None:
    if site == 'block':
        return place.block
    return next((n for n in place.conv if site == 'conv' and is_held(_child(block, n)[2])), None)


def _child(module: nn.Module, path: str) -> tuple[nn.Module, str, nn.Module | None]:
    """The parent, the name and the module at a path; None where there is none."""
    parent: Any = module
    *above, name = path.split('.')
    for part in above:
        parent = getattr(parent, part, None)
    return parent, name, getattr(parent, name, None)


def _channels(source: Any) -> int:
    channels: int = source.out_channels if isinstance(source, nn.Conv2d) else source.num_features
    return channels
