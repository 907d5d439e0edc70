"""Plain weights -> a net with attention that computes the same, from which its attention can learn."""

import copy
import logging
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from timm_attn.attention import AttentionLayer, SimAM, attention_layers
from timm_attn.warm_start.folds import CannotFold, Fold, Value, fold, words
from timm_attn.warm_start.inputs import check_model, image_batch, input_channels, plain_weights, refuse_trained
from timm_attn.warm_start.simam import Place, expect, match, simam_places
from timm_attn.warm_start.walk import tensors_in

ModelT = TypeVar('ModelT', bound=nn.Module)
_logger = logging.getLogger(__name__)

_EXACT = 1e-9  # of the outputs' size, in float64
_UP_TO_EPS = 1e-4  # where a norm's eps does not scale with its input
_HALF_PRECISION = 16  # scales beyond this factor cost accuracy there


def warm_start(
    model: ModelT,
    plain: nn.Module | Mapping[str, Tensor],
    *,
    images: Tensor | Iterable[Any] | None = None,
) -> ModelT:
    """Makes a net with attention compute what the plain net does, in place, and returns it.

    Every attention layer starts at a constant factor, and the weights around it undo the factor: the outputs are those
    of the plain net in evaluation and in training (where a batch norm takes the scaled map, up to its eps), and all of
    the attention can learn. What was scaled is logged at level INFO. SimAM has no constant factor: its start is
    approximate, and a warning says so.

    Args:
        model: a net of this package or of `attach`, newly built: its attention starts anew.
        plain: the net without attention, or its state dict. Without its classifier's weights, the model keeps its own.
        images: for SimAM, a batch (N, C, H, W), or a loader of (images, targets), prepared as for training, to which
            the batch norms, and the convolutions that no norm follows, are matched. The first 256 are taken, as one
            batch, and at least 16 are needed.

    Raises:
        ValueError: the weights are another net's or not finite, the attention was trained, the net is scripted,
            compiled or without values, or no weights can undo the factors; the model is unchanged then.
        NotImplementedError: its attention has no identity_start.
    """
    start(model, plain, images, attention_layers(model))
    return model


def start(
    model: nn.Module,
    plain: nn.Module | Mapping[str, Tensor],
    images: Tensor | Iterable[Any] | None,
    layers: Mapping[str, AttentionLayer],
    gates: Mapping[str, Tensor] | None = None,
    example: Tensor | None = None,
) -> list[Fold]:
    """Starts a net as warm_start does, in place, and returns what was scaled.

    Args:
        layers: the attention that starts, by its paths; other attention is a part of the plain net.
        gates: the paths of attention layers in whose place the plain net multiplies its map by a factor per channel,
            (C,).
        example: an input, for a net that takes no image of the size that it says.
    """
    check_model(model, layers)
    batch = None if images is None else image_batch(model, images)
    # inference tensors do not tell which operations change them, and a default device may be another
    with torch.inference_mode(False), torch.device('cpu'):
        started, folds = _started(model, layers, plain, batch, gates or {}, example)
    _write(started, model)
    return folds


def _started(
    model: nn.Module,
    layers: Mapping[str, AttentionLayer],
    plain: nn.Module | Mapping[str, Tensor],
    images: Tensor | None,
    gates: Mapping[str, Tensor],
    example: Tensor | None,
) -> tuple[nn.Module, list[Fold]]:
    """The net at its start, a copy of the model on the CPU and in float64, and what was scaled."""
    weights = plain_weights(model, layers, plain.state_dict() if isinstance(plain, nn.Module) else plain)
    refuse_trained(model, layers, weights)
    net: Any = copy.deepcopy(model).to('cpu', torch.float64).eval()
    if hasattr(net, 'set_grad_checkpointing'):
        net.set_grad_checkpointing(False)
    net.load_state_dict(weights, strict=False)
    loaded = net.state_dict()
    for key, value in weights.items():
        if not torch.equal(loaded[key], value.to(loaded[key])):
            raise ValueError(f'{type(model).__name__} shares {key} with another layer, and the plain net does not.')
    example = _example(net, example)
    gates = {path: gate.to('cpu', torch.float64) for path, gate in gates.items()}
    reference = _with_constants(net, {path: gates.get(path, 1.0) for path in layers})
    if isinstance(plain, nn.Module):
        _check_plain(plain, reference, example)
    places = simam_places(net, example) if any(isinstance(layer, SimAM) for layer in layers.values()) else {}
    places = {path: place for path, place in places.items() if path in layers}
    folds = _fold_exactly(net, reference, places, example, layers, gates)
    _report(folds)
    if places:
        _approximate(net, reference, places, images, model)
    return net, folds


def _fold_exactly(
    net: nn.Module,
    reference: nn.Module,
    places: dict[str, Place],
    example: Tensor,
    layers: Collection[str],
    gates: Mapping[str, Tensor],
) -> list[Fold]:
    """Folds the layers' factors into the net's weights and checks its outputs, SimAM's typical factor in its place."""

    def begin(layer: AttentionLayer, path: str, mean: Tensor | None) -> float:
        return places[path].factor if path in places else layer.identity_start(mean)

    name = type(net).__name__
    try:
        folds = fold(net, begin, example, layers, gates)
    except CannotFold as error:
        raise ValueError(f'{name} with attention cannot start as its plain net: {error}.') from error
    folded = _with_constants(net, {path: place.factor for path, place in places.items()})
    rescaled = {f.path for f in folds if f.rescales_a_norm}
    lasting = {path for path in rescaled if not isinstance(net.get_submodule(path), nn.modules.batchnorm._BatchNorm)}
    for training, up_to_eps in ((False, lasting), (True, rescaled)):
        deviation = _deviation(reference, folded, example, training)
        if not deviation <= (_UP_TO_EPS if up_to_eps else _EXACT):
            mode = 'training' if training else 'evaluation'
            raise ValueError(
                f'{name} with attention does not start as its plain net: its outputs in {mode} would differ by '
                f'{deviation:.1g} of their size.'
            )
    return folds


def _approximate(
    net: nn.Module, reference: nn.Module, places: dict[str, Place], images: Tensor | None, model: nn.Module
) -> None:
    """Gives what surrounds SimAM the statistics of gated maps, and warns of what remains."""
    if images is None:
        expect(net, places)
        remains = 'warm_start(..., images=...) makes it better'
    else:
        parameter = next(model.parameters())
        of: Any = dict(device=parameter.device, dtype=torch.promote_types(parameter.dtype, torch.float32))
        matched = copy.deepcopy(net).to(**of)
        share = match(reference.eval().to(**of), matched, places, images.to(**of))
        net.load_state_dict(matched.state_dict())
        remains = f'on these images its outputs differ by {share:.1%} of their size'
    warnings.warn(f'The gate of SimAM depends on the data: the start is approximate, {remains}.', stacklevel=5)


def _with_constants(net: nn.Module, factors: Mapping[str, float | Tensor]) -> nn.Module:
    """A copy of a net in which attention layers multiply by constants, or by one per channel."""
    changed = copy.deepcopy(net)
    for path, factor in factors.items():
        by = factor[:, None, None] if isinstance(factor, Tensor) else factor
        # the map itself for 1, as in the plain net
        changed.get_submodule(path).forward = lambda x, by=by: x if isinstance(by, float) and by == 1 else x * by
    return changed


def _example(net: Any, known: Tensor | None) -> Tensor:
    """Two images of noise as the net takes them, small, but with more than one position in the last map."""
    cfg = getattr(net, 'pretrained_cfg', None) or {}
    _, *own = cfg.get('input_size', (3, 224, 224))
    strides = [info['reduction'] for info in getattr(net, 'feature_info', [])]
    least = max(16, 2 * max(strides, default=32))
    small = [min(side, least) for side in own]
    sizes = [own, small] if cfg.get('fixed_input_size') else [small, own]
    noise = [_noise(net, sides) for sides in (*sizes, *([] if known is None else [known.shape[2:]]))]
    return next((x for x in noise if _runs(net, x)), noise[0])


def _noise(net: nn.Module, sides: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, input_channels(net), *sides), generator=generator, dtype=torch.float64)


@torch.no_grad()
def _runs(net: nn.Module, x: Tensor) -> bool:
    try:
        net(x)
    except (AssertionError, RuntimeError, ValueError):  # it has another size than it says
        return False
    return True


@torch.no_grad()
def _deviation(a: nn.Module, b: nn.Module, example: Tensor, training: bool) -> float:
    """The largest difference of two nets' outputs, relative to the largest output of the first."""
    outputs = []
    for net in (a, b):
        net = copy.deepcopy(net).train() if training else net.eval()  # batch norms count in training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # equal dropout
            outputs.append(torch.cat([out.flatten() for out in tensors_in(net(example))]))
    expected, found = outputs
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


def _check_plain(plain: nn.Module, reference: nn.Module, example: Tensor) -> None:
    """Raises a ValueError for a net with the same weights that computes something else."""
    deviation = _deviation(copy.deepcopy(plain).to('cpu', torch.float64), reference, example, training=False)
    if not deviation <= _EXACT:
        raise ValueError(
            f'The plain {type(plain).__name__} has the weights of this net, but other outputs: it is another net, as '
            'with other strides or activations.'
        )


def _report(folds: list[Fold]) -> None:
    """Logs what was scaled, and warns of scales that half precision does not bear."""
    for one in folds:
        _logger.info('%s: %s', one.path, one.words)
    far = {one.path: scale for one in folds for scale in (*one.inputs, one.output) if _is_far(scale)}
    if far:
        listed = ', '.join(f'{path} ({words(scale)})' for path, scale in far.items())
        warnings.warn(f'Maps are scaled far, which costs accuracy in half precision: {listed}.', stacklevel=5)


def _is_far(scale: Value) -> bool:
    least, most = (scale, scale) if not isinstance(scale, Tensor) else (float(scale.min()), float(scale.max()))
    return not 1 / _HALF_PRECISION <= least <= most <= _HALF_PRECISION


@torch.no_grad()
def _write(net: nn.Module, model: nn.Module) -> None:
    """Copies a net's values into another's tensors, which keep their dtypes, devices and gradients' flags."""
    pairs = [
        *zip(model.parameters(), net.parameters(), strict=True),
        *zip(model.buffers(), net.buffers(), strict=True),
    ]
    if not all(value.to(target.dtype).isfinite().all() for target, value in pairs):
        raise ValueError(f'The weights at the start are beyond the range of {next(model.parameters()).dtype}.')
    at: dict[int, Tensor] = {}  # by the memory of a target: the copy has its own for each parameter
    for target, value in pairs:
        if target.numel() and not torch.equal(at.setdefault(target.data_ptr(), value), value):
            raise ValueError(
                f'{type(model).__name__} has parameters in one memory that a start would scale differently, of shape '
                f'{tuple(target.shape)}: let the layers share the parameter itself.'
            )
    for target, value in pairs:
        target.copy_(value)
