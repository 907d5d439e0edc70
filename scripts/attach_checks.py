"""What a net with attention must still do: whatever its plain net does. The table CHECKS, for attach_reach.py."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from warm_start_pairs import with_trained_norms

from timm_attn import attach, placements
from timm_attn.attach import attention_layers
from timm_attn.attach.places import find_place

PASSED, WRONG = 'passed', 'WRONG'
_SIDES = (64, 96)  # pixels
_ROUNDING = dict(rtol=1e-4, atol=1e-4)
_EXACT, _UP_TO_EPS = 1e-5, 3e-4  # of the largest output: an identity start in float32; where a norm's eps has a part


class Absent(Exception):
    """The net does not offer what a check is about."""


@dataclass
class Case:
    """A plain net, its copy with attention, and images of two sizes (one where the net takes no other)."""

    plain: Any
    model: Any
    images: list[Tensor]
    way: Mapping[str, Any]

    def attached(self, **kwargs: Any) -> Any:
        return attach(copy.deepcopy(self.plain), 'eca', **{**self.way, **kwargs})


def case(name: str, way: Mapping[str, Any], **options: Any) -> Case:
    """A model of timm and its copy with ECA, in evaluation; its norms as after training."""
    torch.manual_seed(0)
    plain = _small(name, **options).eval()
    for parameter in plain.parameters():
        if not parameter.any():  # a last layer of zeros hides what is before it
            nn.init.normal_(parameter, std=0.1)
    plain = with_trained_norms(plain)
    images = list(_images(plain))
    way = {**way, 'example': images[0]}  # a net that is built for small images may say another size
    try:
        model = attach(copy.deepcopy(plain), 'eca', **way)
    except ValueError as error:
        if 'replace=True' not in str(error):
            raise
        way = {**way, 'replace': True}
        model = attach(copy.deepcopy(plain), 'eca', **way)
    return Case(plain, model, images, way)


def _small(name: str, **options: Any) -> Any:
    """A net, built for small images where it is built for one size."""
    try:
        cfg: Any = timm.get_pretrained_cfg(name)
        return timm.create_model(name, **(dict(img_size=_SIDES[0]) if cfg.fixed_input_size else {}), **options)
    except (AssertionError, RuntimeError, TypeError):  # it has no such option, or not that size
        return timm.create_model(name, **options)


@torch.no_grad()
def _images(plain: Any) -> Iterator[Tensor]:
    channels, height, width = plain.pretrained_cfg['input_size']
    for sides in ([(side, side) for side in _SIDES], [(height, width), (height + 32, width + 32)]):
        found = []
        for side in sides:
            x = torch.randn(1, channels, *side)
            try:
                plain(x)
            except (AssertionError, RuntimeError, ValueError):  # too small, or not its own
                continue
            found.append(x)
        if found:
            yield from found
            return


def _forward(one: Case) -> None:
    with torch.no_grad():
        for x in one.images:
            outputs, plain = one.model(x), one.plain(x)
            assert outputs.shape == plain.shape and outputs.isfinite().all()
            assert not torch.allclose(outputs, plain), 'the attention does nothing'


def _all_counted(one: Case) -> None:
    rows = [row.path for row in placements(one.model)]
    if one.way.get('at') == 'stages':
        modules = dict(one.plain.named_modules())
        places = [info['module'] for info in one.plain.feature_info if info['module'] and info['module'] in modules]
    else:
        places = [path for path, module in one.plain.named_modules() if find_place(module) is not None]
    left = [path for path in places if not any(row == path or row.startswith(f'{path}.') for row in rows)]
    assert places and not left, f'nothing is said of {left[:3]}'


def _plain_weights(one: Case) -> None:
    twin = copy.deepcopy(one.model)
    missing, unexpected = twin.load_state_dict(one.plain.state_dict(), strict=False)
    rows = placements(one.model)
    new = tuple(f'{row.path}.' for row in rows if row.channels)
    old = tuple(f'{row.path}.' for row in rows if row.how == 'replaced')
    left = [*(k for k in missing if not k.startswith(new)), *(k for k in unexpected if not k.startswith(old or '.'))]
    assert not left, f'{left[:3]} do not load'
    if not old:
        for layer in attention_layers(twin).values():
            layer.forward = lambda x: x  # type: ignore[method-assign]
        _same(twin, one.plain, one.images[0], **_ROUNDING)


def _state_dict(one: Case) -> None:
    twin = one.attached()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    twin.load_state_dict(one.model.state_dict(), strict=True)
    _same(twin, one.model, one.images[0])


def _gradients(one: Case) -> None:
    net, x = copy.deepcopy(one.model).train(), one.images[0]  # in evaluation random weights may saturate the gates
    net(torch.cat([x, torch.randn_like(x)])).square().mean().backward()
    layers = attention_layers(net).items()
    idle = [f'{path}.{key}' for path, layer in layers for key, p in layer.named_parameters() if not _learns(p)]
    assert not idle, f'no gradient for {idle[:3]}'


def _learns(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _identity(one: Case) -> None:
    if one.way.get('replace'):
        raise Absent('approximate: its own attention is replaced')
    try:
        model = one.attached(start='identity')
    except ValueError as error:
        raise Absent(f'refused: {error}') from error
    norms = any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in model.modules())
    with torch.no_grad():
        expected, found = one.plain(one.images[0]), model(one.images[0])
    deviation = float((found - expected).abs().max() / expected.abs().max())
    assert deviation <= (_UP_TO_EPS if norms else _EXACT), f'the logits differ by {deviation:.1e} of the largest'


def _same(a: nn.Module, b: nn.Module, x: Tensor, **close: float) -> None:
    with torch.no_grad():
        assert_close(a(x), b(x), **(close or dict(rtol=0, atol=0)))


# What a net does by itself: (net, x) -> what of it must not change when the net has been copied, compiled and so on


def _deepcopied(net: Any, x: Tensor) -> None:
    _same(copy.deepcopy(net), net, x)


def _pickled(net: Any, x: Tensor) -> None:
    _same(pickle.loads(pickle.dumps(net)), net, x)


def _exported(net: Any, x: Tensor) -> None:
    _same(torch.export.export(net, (x,)).module(), net, x, **_ROUNDING)


def _compiled(net: Any, x: Tensor) -> None:
    torch._dynamo.reset()
    _same(torch.compile(net, backend='eager', fullgraph=True), net, x, **_ROUNDING)


def _scripted(net: Any, x: Tensor) -> None:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    _same(torch.jit.load(file), net, x, **_ROUNDING)


def _checkpointed(net: Any, x: Tensor) -> None:
    net = copy.deepcopy(net)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            net.set_grad_checkpointing()
        net.zero_grad()
        net(x).square().mean().backward()
        gradients.append({key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None})
    assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


def _features(one: Case) -> None:
    if not hasattr(one.plain, 'forward_intermediates'):
        raise Absent('the plain net has none')
    plain, model = (_shapes(net, one.images[0]) for net in (one.plain, one.model))
    assert model == plain, f'the features have the shapes {model}, not {plain}'


@torch.no_grad()
def _shapes(net: Any, x: Tensor) -> list[tuple[int, ...]]:
    found = net.forward_intermediates(x, intermediates_only=True)
    return [tuple(part.shape) for one in found for part in ([one] if isinstance(one, Tensor) else one)]


def _where_the_plain_net_can(ability: Callable[[Any, Tensor], None]) -> Callable[[Case], None]:
    def check(one: Case) -> None:
        try:
            ability(one.model, one.images[0])
        except Exception:
            try:
                ability(one.plain, one.images[0])
            except Exception as error:
                raise Absent('the plain net cannot either') from error
            raise

    return check


CHECKS: Mapping[str, Callable[[Case], None]] = {
    'forward on two sizes': _forward,
    'every stage or block counted': _all_counted,
    "loads the plain net's weights": _plain_weights,
    'state_dict round trip': _state_dict,
    'deepcopy': _where_the_plain_net_can(_deepcopied),
    'pickle': _where_the_plain_net_can(_pickled),
    'torch.export': _where_the_plain_net_can(_exported),
    'torch.compile(fullgraph=True)': _where_the_plain_net_can(_compiled),
    'torch.jit.script': _where_the_plain_net_can(_scripted),
    'forward_intermediates': _features,
    'gradient checkpointing': _where_the_plain_net_can(_checkpointed),
    "a gradient for every attention's parameter": _gradients,
    "start='identity' keeps the logits": _identity,
}


def run(name: str, way: Mapping[str, Any], **options: Any) -> dict[str, str]:
    """Every check -> PASSED, why there is nothing to check, or 'WRONG ...'."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        one = case(name, way, **options)
        for title, check in CHECKS.items():
            try:
                check(one)
                found[title] = PASSED
            except Absent as why:
                found[title] = str(why)
            except Exception as error:  # a table of what goes wrong, not the first of it
                found[title] = f'{WRONG} {type(error).__name__}: {" ".join(str(error).split())[:300]}'
    return found
