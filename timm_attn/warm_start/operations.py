"""How operations relate the scales of the maps around them: the table RULES. What is not in it is pinned."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from timm_attn.warm_start.scales import PINNED
from timm_attn.warm_start.walk import Call, Rule, Spans, Walk, tensors_in

_CONV = ('input', 'weight', 'bias', 'stride', 'padding', 'dilation', 'groups')
_BATCH_NORM = ('input', 'running_mean', 'running_var', 'weight', 'bias', 'training', 'momentum', 'eps')
_LAYER_NORM = ('input', 'shape', 'weight', 'bias', 'eps')  # the second argument of group_norm is a number of groups


def same(walk: Walk, call: Call) -> bool:
    """f(s x) = s f(x) for every s > 0, element by element."""
    x, *slopes = call.tensors
    if not call.args or call.args[0] is not x:
        return False
    if not _viewed(walk, call):
        walk.pin(*slopes)
        walk.put(call.out, walk.spans(x))
    return True


def pooled(walk: Walk, call: Call) -> bool:
    """f(s x) = s f(x), channel by channel of (N, C, H, W)."""
    if len(call.tensors) != 1:
        return False
    spans = _spans_if(call.tensors[0].ndim == 4, walk, call.tensors[0])
    for result in tensors_in(call.out):
        walk.put(result, spans if result.is_floating_point() else [(0, PINNED)])  # positions do not depend on scales
    return True


def moved(walk: Walk, call: Call) -> bool:
    """Linear or an extreme, and the channels may go anywhere."""
    if len(call.tensors) != 1:
        return False
    if not _viewed(walk, call):
        scale = walk.one(call.tensors[0])
        for result in tensors_in(call.out):
            walk.put(result, [(0, scale if result.is_floating_point() else PINNED)])
    return True


def reduced(walk: Walk, call: Call) -> bool:
    """A mean, sum or extreme; over the positions alone it keeps the channels in place."""
    if len(call.tensors) != 1 or not isinstance(call.out, Tensor):
        return moved(walk, call)
    (x,) = call.tensors
    dim = call.named('input', 'dim').get('dim')
    dims = dim if isinstance(dim, (list, tuple)) else [dim]
    if not all(isinstance(d, int) and d % x.ndim >= 2 for d in dims):
        return moved(walk, call)
    walk.put(call.out, walk.spans(x))
    return True


def flattened(walk: Walk, call: Call) -> bool:
    """(N, C, H, W) -> (N, C H W): every channel becomes H W in a row."""
    arguments = call.named('input', 'start_dim', 'end_dim')
    x = call.tensors[0]
    if arguments.get('start_dim') != 1 or call.out.ndim != 2 or walk.parameter(x) is not None:
        return moved(walk, call)
    walk.put(call.out, [(channels * x[0, 0].numel(), scale) for channels, scale in walk.spans(x)])
    return True


def padded(walk: Walk, call: Call) -> bool:
    """Zeros around the positions."""
    arguments = call.named('input', 'pad', 'mode', 'value')
    if arguments.get('mode', 'constant') == 'constant' and arguments.get('value') not in (None, 0):
        return False
    x = arguments['input']
    walk.put(call.out, _spans_if(len(arguments['pad']) <= 2 * (x.ndim - 2), walk, x))
    return True


def added(walk: Walk, call: Call) -> bool:
    """All terms have one scale."""
    terms = call.args[:2]
    if len(terms) == 2 and 0 in [t for t in terms if isinstance(t, Real)] and len(call.tensors) == 1:  # as of sum()
        walk.put(call.out, walk.spans(call.tensors[0]))
        return True
    if len(terms) != 2 or len(call.tensors) != 2:
        return False
    a, b = call.tensors
    left, right = walk.spans(a), walk.spans(b)
    if a.ndim != b.ndim or [channels for channels, _ in left] != [channels for channels, _ in right]:
        left, right = [(0, walk.one(a))], [(0, walk.one(b))]
    for (_, m), (_, n) in zip(left, right, strict=True):
        walk.equal(m, n)
    walk.put(call.out, left)
    return True


def multiplied(walk: Walk, call: Call) -> bool:
    """By a number or a map of scale 1, or by a parameter, which absorbs any scale."""
    if len(call.args) != 2 or not isinstance(call.args[0], Tensor) or call.kwargs:  # rounding_mode
        return False
    if len(call.tensors) == 1:
        walk.put(call.out, walk.spans(call.tensors[0]))
        return True
    maps = [t for t in call.tensors if walk.parameter(t) is None]
    if len(maps) == 1:
        gamma = next(p for t in call.tensors if (p := walk.parameter(t)) is not None)
        if call.func in _DIVISIONS:
            return False
        scale = walk.absorb(gamma, None, [(0, walk.one(maps[0]))], kind='multiplied')
        if scale is not None:
            walk.put(call.out, [(0, scale)])
        return scale is not None
    first_is_enough = maps and _is_pinned(walk, maps[1])
    if not first_is_enough and (not maps or call.func in _DIVISIONS or not _is_pinned(walk, maps[0])):
        return False
    x = maps[0] if first_is_enough else maps[1]
    walk.put(call.out, _spans_if(x.ndim == call.out.ndim, walk, x))
    return True


def concatenated(walk: Walk, call: Call) -> bool:
    """Along dimension 1 every part keeps its own scale."""
    dim = call.named('tensors', 'dim').get('dim', 0)
    if isinstance(dim, int) and dim % call.out.ndim == 1:
        spans: Spans = []
        for part in call.tensors:
            inner = walk.spans(part)
            spans += inner if len(inner) > 1 else [(part.shape[1], inner[0][1])]
        walk.put(call.out, spans)
        return True
    first, *others = [walk.one(part) for part in call.tensors]
    for other in others:
        walk.equal(first, other)
    walk.put(call.out, [(0, first)])
    return True


def mixed(walk: Walk, call: Call) -> bool:
    """A convolution or a linear layer absorbs any scales of its input channels and of its output."""
    arguments = call.named(*_CONV)
    x, given, given_bias = arguments['input'], arguments['weight'], arguments.get('bias')
    weight, bias = walk.parameter(given), walk.parameter(given_bias)
    if weight is None or (given_bias is not None and bias is None):
        if given_bias is not None or weight is not None or not _is_pinned(walk, given):
            return False
        walk.put(call.out, [(0, walk.one(x))])  # fixed weights, as of a blur
        return True
    inputs = _spans_if(weight is given and x.ndim == given.ndim, walk, x)
    scale = walk.absorb(weight, bias, inputs, kind='mixed', groups=arguments.get('groups', 1))
    if scale is not None:
        walk.put(call.out, [(0, scale)])
    return scale is not None


def normalised(walk: Walk, call: Call) -> bool:
    """A norm with weights removes any scale of its input, up to eps, and gives any to its output."""
    batch = call.func is F.batch_norm
    arguments = call.named(*(_BATCH_NORM if batch else _LAYER_NORM))
    x, given, given_bias = arguments['input'], arguments.get('weight'), arguments.get('bias')
    weight, bias = walk.parameter(given), walk.parameter(given_bias)
    if weight is not given or bias is not given_bias or weight is None or walk.parameter(x) is not None:
        return False
    details: dict[str, Any] = dict(eps=arguments.get('eps', 1e-5))
    if batch and arguments['running_mean'] is not None:
        details['statistics'] = (arguments['running_mean'], arguments['running_var'])
    inputs = _spans_if(batch, walk, x)
    scale = walk.absorb(weight, bias, inputs, kind='normalised', **details)
    if scale is None:
        return False
    for _, number in inputs:
        walk.scales.prefer(number, _NORMS_FIRST)
    walk.put(call.out, [(0, scale)])
    walk.norm_gives(call.out, bias)
    return True


_NORMS_FIRST = 10**6  # a convolution that is scaled in front of a batch norm learns at another rate


def _viewed(walk: Walk, call: Call) -> bool:
    """Records a view of a parameter, if the operation makes one."""
    parameter = walk.parameter(call.tensors[0])
    if parameter is None or call.func not in _VIEWS:
        return False
    for result in tensors_in(call.out):
        walk.add_view(result, parameter)
    return True


def _spans_if(along_channels: bool, walk: Walk, x: Tensor) -> Spans:
    """The scales of a map, or the single one that it must have where its channels do not stay in place."""
    return walk.spans(x) if along_channels else [(0, walk.one(x))]


def _is_pinned(walk: Walk, x: Tensor) -> bool:
    return all(walk.scales.is_pinned(number) for _, number in walk.spans(x))


def _functions(names: str, *places: Any) -> list[Callable[..., Any]]:
    return [getattr(place, name) for name in names.split() for place in places if hasattr(place, name)]


def _rows(rule: Rule, functions: Iterable[Any]) -> dict[Any, Rule]:
    return dict.fromkeys(functions, rule)


_TORCH = (torch, Tensor)
_DIVISIONS = _functions('div div_ true_divide __truediv__ __itruediv__', *_TORCH)
_VIEWS = [
    *_functions('flatten reshape view permute transpose unsqueeze squeeze t expand to contiguous', *_TORCH),
    Tensor.T.__get__,  # type: ignore[attr-defined]
    Tensor.__getitem__,
]
RULES: Mapping[Any, Rule] = {
    **_rows(moved, _VIEWS),
    **_rows(moved, _functions('unflatten swapaxes movedim roll repeat unbind chunk split', *_TORCH)),
    **_rows(moved, _functions('pixel_shuffle pixel_unshuffle', F, torch)),
    **_rows(same, _functions('contiguous clone to float double neg detach', *_TORCH)),
    **_rows(same, _functions('relu relu_ leaky_relu leaky_relu_ prelu dropout dropout2d', F, *_TORCH)),
    **_rows(pooled, _functions('max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d interpolate', F, torch)),
    **_rows(reduced, _functions('mean sum amax max', *_TORCH)),
    **_rows(flattened, _functions('flatten', *_TORCH)),
    **_rows(padded, [F.pad]),
    **_rows(added, _functions('add add_ __add__ __iadd__ __radd__ sub sub_ __sub__ __isub__', *_TORCH)),
    **_rows(multiplied, _functions('mul mul_ multiply __mul__ __imul__ __rmul__', *_TORCH)),
    **_rows(multiplied, _DIVISIONS),
    **_rows(concatenated, _functions('cat concat', torch)),
    **_rows(mixed, [F.conv1d, F.conv2d, F.linear]),
    **_rows(normalised, [F.batch_norm, F.layer_norm, F.group_norm]),
}
