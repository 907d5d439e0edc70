"""Which places can have an attention, and how many channels they have."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from timm_attn.attach.probe import Call, described, layout, probe
from timm_attn.attach.spot import Spot, child, is_sequence

Skipped = dict[str, str]  # path -> why


def measured(
    model: nn.Module, spots: Sequence[Spot], example: Tensor | None, *, stages: bool = False
) -> tuple[list[Spot], Skipped]:
    """The spots whose module runs and gives a map, with their channels, and why the others do not.

    Args:
        stages: the spots are whole stages, whose output a module in them may give.

    Raises:
        ValueError: a module runs more than once.
    """
    unknown = [spot for spot in spots if spot.channels is None or stages]
    ready, skipped = [spot for spot in spots if spot not in unknown], Skipped()
    if not unknown:
        return ready, skipped
    empty = [spot for spot in unknown if spot.old is None]
    for spot in empty:
        setattr(spot.parent, spot.name, nn.Identity())  # the hook needs a module
    watched = [spot.parent.get_submodule(spot.name) for spot in unknown]
    inner = [one for module in watched if stages for _, one in _ends(module)]
    try:
        calls = probe(model, [*watched, *inner], example)
    finally:
        for spot in empty:
            setattr(spot.parent, spot.name, None)
    last = getattr(model, 'output_fmt', 'NCHW') == 'NHWC'
    for spot, module in zip(unknown, watched, strict=True):
        seen = calls[module]
        found = layout(seen[0].output, spot.channels, last) if seen else None
        why = _why_not(spot, seen, found)
        if why or found is None:
            skipped[spot.path] = why
            continue
        spot.channels, spot.channels_last = found
        if stages and spot.how == 'wrapped':
            _move_inside(spot, module, calls)
        ready.append(spot)
    return ready, skipped


def _why_not(spot: Spot, calls: Sequence[Call], found: tuple[int, bool] | None) -> str:
    if len(calls) > 1:
        raise ValueError(f'{spot.path} runs {len(calls)} times in a forward pass: one attention cannot follow it.')
    if not calls:
        return 'does not run in a forward pass'
    if found is None:
        return f'gives {described(calls[0].output)}, no map'
    return f'takes {calls[0].inputs} inputs' if spot.how == 'wrapped' and calls[0].inputs != 1 else ''


def _ends(stage: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a stage that may give its output: every nn.Sequential, then its children."""
    yield from ((path, m) for path, m in stage.named_modules() if path and is_sequence(m))
    yield from stage.named_children()


def _move_inside(spot: Spot, stage: nn.Module, calls: Mapping[nn.Module, Sequence[Call]]) -> None:
    """Moves a spot to the module in its stage that gives the stage's output: the paths by which timm groups layers
    (for their learning rates) stay, and an nn.Sequential is appended to."""
    (whole,) = calls[stage]
    for path, module in _ends(stage):
        if [(one.inputs, one.output is whole.output, one.version) for one in calls[module]] == [
            (1, True, whole.version)
        ]:
            spot.path = f'{spot.path}.{path}'
            spot.parent, spot.name, spot.old = child(stage, path)
            return
