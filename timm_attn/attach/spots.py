"""Where a new attention goes in a built net."""

from torch import Tensor, nn

from timm_attn.attach.choose import At, by_paths, by_stages, by_table
from timm_attn.attach.measure import Skipped, measured
from timm_attn.attach.spot import Spot
from timm_attn.attention import Attention

_MAPS = 'An attention weights the channels of maps (N, C, H, W): choose a ConvNet, such as convnext_tiny or resnet50'


def find_spots(
    model: nn.Module, row: Attention, at: At | None, replace: bool, example: Tensor | None
) -> tuple[list[Spot], Skipped]:
    """The places that `at` names, their channels known, and what was left out; the net is unchanged.

    Raises:
        ValueError: there is none, or one of them is taken or cannot have an attention.
    """
    skipped: Skipped = {}
    if at is None:
        spots = list(by_table(model, row, replace, skipped))
    elif at == 'stages':
        if replace:
            raise ValueError("replace=True needs the old layers' places: at=None or their paths, not at='stages'.")
        spots = list(by_stages(model, skipped))
    else:
        spots = list(by_paths(model, at, replace))
    ready, left_out = measured(model, spots, example, stages=at == 'stages')
    if left_out and at not in (None, 'stages'):  # the user has named it
        raise ValueError(f'{" ".join(next(iter(left_out.items())))}. {_MAPS}, or another place.')
    skipped.update(left_out)
    if not ready:
        raise ValueError(_nothing(model, row, at, replace, skipped, example))
    for spot in ready:
        if spot.taken_by is not None:
            taken = type(spot.taken_by).__name__
            raise ValueError(f'{spot.path} already holds {taken}: replace=True puts {row.title} there instead.')
    return ready, skipped


def _nothing(
    model: nn.Module, row: Attention, at: At | None, replace: bool, skipped: Skipped, example: Tensor | None
) -> str:
    """Why there is no place, and what to do."""
    net = type(model).__name__
    if at is None and not replace:  # would another way do?
        stages, left_out = measured(model, list(by_stages(model, {})), example, stages=True)
        if not stages:
            at, skipped = 'stages', left_out
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


__all__ = ['At', 'Skipped', 'Spot', 'find_spots']
