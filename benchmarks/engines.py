"""Whole nets in the engines that run nets on a CPU, each built for one shape, as torch.compile builds them."""

import copy
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib import metadata, util
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

import timm_attn
from benchmarks.measure import Runner
from benchmarks.nets import named, random_images, with_one_trunk

PLAIN, EAGER = 'plain', 'eager'
REFERENCE = f'{PLAIN}/{EAGER}'
LARGEST_DIFFERENCE = 1e-4  # of logits, relative to the largest
COMPILED_NETS = (PLAIN, 'simam')  # --compile has more, without freezing
MOST_COMPILED = 64  # nets of one class, where torch's limit is 8

Call = Callable[[], Any]  # gives the logits, a tensor or an array


class Engine(NamedTuple):
    """A row.

    Args:
        build: how a net becomes a call on images.
        needs: the distributions that this imports.
        slow: it takes minutes for a net.
    """

    build: Callable[[nn.Module, Tensor], Call]
    needs: tuple[str, ...] = ()
    slow: bool = False

    def missing(self) -> list[str]:
        return [name for name in self.needs if util.find_spec(name) is None]


def _eager(net: nn.Module, images: Tensor) -> Call:
    return partial(net, images)


def _channels_last(net: nn.Module, images: Tensor) -> Call:
    layout: Any = dict(memory_format=torch.channels_last)
    return partial(copy.deepcopy(net).to(**layout), images.to(**layout))


def _fused(net: nn.Module, images: Tensor) -> Call:
    return partial(timm_attn.fuse(net), images)


def _compiled(net: nn.Module, images: Tensor, freezing: bool = False) -> Call:
    """Compiled in its first call. Tracing reads the setting of freezing; without the option torch's cache would return
    the graph without it."""
    options: dict[str, Any] | None = {'freezing': True} if freezing else None
    call = partial(torch.compile(net, dynamic=False, options=options), images)
    with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED), inductor.patch(freezing=freezing):
        call()
    return call


def _onnx_file(net: nn.Module, images: Tensor) -> bytes:
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the older exporter is deprecated, and says that it fixes the shape
        torch.onnx.export(net, (images,), file, opset_version=17, dynamo=False, input_names=['images'])
    return file.getvalue()


def _onnxruntime(net: nn.Module, images: Tensor) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_onnx_file(net, images), options, providers=['CPUExecutionProvider'])
    given = {'images': images.numpy()}
    return lambda: session.run(None, given)[0]


@cache
def _openvino_core() -> Any:
    """One core per process: after two, OpenVINO 2026.4.1 may leave a freed stack, on which the next signal crashes."""
    import openvino

    return openvino.Core()


def _openvino(net: nn.Module, images: Tensor) -> Call:
    import openvino

    config = {'INFERENCE_NUM_THREADS': torch.get_num_threads(), 'INFERENCE_PRECISION_HINT': 'f32'}
    model = openvino.convert_model(io.BytesIO(_onnx_file(net, images)))
    compiled = _openvino_core().compile_model(model, 'CPU', config)
    given = [images.numpy()]
    return lambda: compiled(given)[0]


ENGINES: Mapping[str, Engine] = {
    EAGER: Engine(_eager),
    'channels_last': Engine(_channels_last),
    'fuse': Engine(_fused),
    'compile': Engine(_compiled, slow=True),
    'compile, freezing': Engine(partial(_compiled, freezing=True), slow=True),
    'onnxruntime': Engine(_onnxruntime, ('onnx', 'onnxruntime')),
    'OpenVINO': Engine(_openvino, ('onnx', 'openvino')),
}


def nets_of(plain: str, stem: str, attentions: Sequence[str]) -> dict[str, str]:
    """The names of a plain net and of those with each attention, by what they add."""
    return {PLAIN: plain, **{attention: f'{stem}_{attention}' for attention in attentions}}


def plain_in_the_engine(variant: str) -> str:
    return f'{PLAIN}/{variant.partition("/")[2]}'


def eager_of_the_net(variant: str) -> str:
    return f'{variant.partition("/")[0]}/{EAGER}'


def missing_engines() -> dict[str, list[str]]:
    """The engines that are not installed, and what they need."""
    return {name: engine.missing() for name, engine in ENGINES.items() if engine.missing()}


def engine_versions() -> dict[str, str]:
    """The versions of what the installed engines need."""
    needs = dict.fromkeys(need for engine in ENGINES.values() if not engine.missing() for need in engine.needs)
    return {name: metadata.version(name) for name in needs}


def variants_of(nets: Iterable[str], batch: int) -> list[tuple[str, str]]:
    """Pairs of a net and an engine: slow engines only for one image and the nets of COMPILED_NETS."""
    slow = COMPILED_NETS if batch == 1 else ()
    return [(net, name) for net in nets for name, engine in ENGINES.items() if net in slow or not engine.slow]


def engine_runners(nets: Mapping[str, str], batch: int, *, size: int = 224) -> dict[str, Runner]:
    """The nets in the installed engines, as 'net/engine', on the same random images.

    Raises:
        ValueError: an engine's logits are not those of eager torch.
    """
    images = random_images(batch, size, 'cpu')
    built = with_one_trunk({net: named(name) for net, name in nets.items()}, 'cpu', training=False)
    runners = {}
    for net, name in variants_of(nets, batch):
        if not ENGINES[name].missing():
            with torch.inference_mode():
                call = ENGINES[name].build(built[net], images)
                _check(call(), built[net](images), f'{name} of {nets[net]}')
            runners[f'{net}/{name}'] = Runner(call, torch.inference_mode, batch)
    return runners


def _check(logits: Any, expected: Tensor, what: str) -> None:
    found = torch.as_tensor(logits)
    if found.shape != expected.shape:
        raise ValueError(f'{what} gives logits of shape {tuple(found.shape)} instead of {tuple(expected.shape)}.')
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    if not difference <= LARGEST_DIFFERENCE:  # NaN is none
        raise ValueError(
            f'{what} gives other logits than eager torch: they differ by {difference:.1e} of the largest, and at most '
            f'{LARGEST_DIFFERENCE:.0e} is rounding.'
        )
