"""One forward pass, seen operation by operation: which maps there are, and which weights can absorb a scale.

Every map of the net with attention is a scale times the map of the plain net. What is not understood is pinned at 1,
so that a fold is refused rather than wrong.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from timm_attn.attention import AttentionLayer
from timm_attn.warm_start.scales import PINNED, CannotFold, Gated, Scale, Scales

# The scales of a map along dimension 1, each with its number of channels; a single one holds for the whole map.
Spans = list[tuple[int, int]]
# A layer, its path, and the expected input per channel where it is known -> the layer's constant factor
Start = Callable[[AttentionLayer, str, Tensor | None], float]


@dataclass(frozen=True)
class Use:
    """Weights that take maps of any scales and give a map of any scale.

    Args:
        kind: 'mixed' by a convolution or linear layer, 'normalised', 'multiplied' by the weight, or the 'map' itself.
        path: the module.
        inputs: the scales along the weight's input channels.
        output: the scale of what comes out.
        statistics: a batch norm's running mean and variance.
    """

    kind: str
    path: str
    weight: Tensor
    bias: Tensor | None
    inputs: Spans
    output: int
    groups: int = 1
    statistics: tuple[Tensor, Tensor] | None = None
    eps: float = 0.0


@dataclass(frozen=True)
class Call:
    """An operation of the forward pass and its result."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    tensors: list[Tensor]  # among the arguments
    written: list[Tensor]  # of those, the ones it changed

    def named(self, *names: str) -> dict[str, Any]:
        """The arguments by their names, as far as they were given."""
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}


Rule = Callable[['Walk', Call], bool]  # relates the scales around an operation; False: it cannot


class Walk(TorchFunctionMode):
    """Records scales and uses during a forward pass in evaluation.

    Args:
        rules: what is known of operations.
        start: puts an attention layer at a constant factor.
        example: the model's input.
        layers: the paths of the attention layers that start; others are a part of the plain net.
        gated: the paths of layers in whose place the plain net has a gate per channel, of the symbol of that name.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[Any, Rule],
        start: Start,
        example: Tensor,
        layers: Collection[str],
        gated: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.scales = Scales()
        self.path = ''  # of the module that is running
        self.reached: set[str] = set()  # attention layers
        self._rules, self._start, self._layers, self._gated = rules, start, layers, gated
        self._spans: dict[int, Spans] = {}  # by the id of a map
        self._parameters: dict[int, Tensor] = {id(p): p for p in model.parameters()}  # by the id of it or a view of it
        self._uses: dict[int, Use | None] = {}  # by the memory of a parameter; None: it must stay as it is
        self._betas: dict[int, Tensor] = {}  # by the id of a norm's output
        self._alive: dict[int, list[Tensor]] = {}  # all maps, so that ids stay unique, by their memory
        self._inside = 0  # attention layers that are running
        self._stack: list[str] = []
        attributes = (v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor))
        for constant in (example, *model.buffers(), *attributes):
            self.put(constant, [(0, PINNED)])
        self._hooks = [hook for path, module in model.named_modules() for hook in self._follow(module, path)]

    def remove(self) -> None:
        """Removes the hooks from the model."""
        for hook in self._hooks:
            hook.remove()

    def uses(self) -> list[Use]:
        """The uses of weights that may be scaled."""
        return list({id(use): use for use in self._uses.values() if use is not None}.values())

    # Scales of maps

    def spans(self, tensor: Tensor) -> Spans:
        """The scales of a map."""
        if id(tensor) not in self._spans:
            if id(tensor) not in self._parameters:
                raise CannotFold(f'{self.path} takes a map whose origin is out of sight, as of a scripted function')
            self.put(tensor, [(0, self._own_scale(self._parameters[id(tensor)]))])
        return self._spans[id(tensor)]

    def put(self, tensor: Tensor, spans: Spans) -> None:
        """Records the scales of a map."""
        self._keep(tensor)
        self._betas.pop(id(tensor), None)
        self._spans[id(tensor)] = spans[:1] if len({number for _, number in spans}) == 1 else spans

    def one(self, tensor: Tensor) -> int:
        """The scale of a map whose channels must all have the same."""
        (_, first), *others = self.spans(tensor)
        for _, other in others:
            self.equal(first, other)
        self._spans[id(tensor)] = [(0, first)]
        return first

    def equal(self, a: int, b: int) -> None:
        self.scales.relate(a, b, Fraction(1), self.path)

    def pin(self, *tensors: Tensor) -> None:
        """Gives maps the scale 1, and keeps parameters as they are."""
        for tensor in tensors:
            if id(tensor) in self._parameters:
                self.freeze(self._parameters[id(tensor)])
            else:
                for _, number in self.spans(tensor):
                    self.equal(PINNED, number)

    # Weights

    def parameter(self, tensor: Any) -> Tensor | None:
        """The parameter that a tensor is, or is a view of."""
        return self._parameters.get(id(tensor))

    def add_view(self, view: Tensor, parameter: Tensor) -> None:
        self._keep(view)
        self._parameters[id(view)] = parameter

    def freeze(self, parameter: Tensor) -> None:
        """Keeps a parameter as it is, also where it was used before."""
        use = self._uses.get(_memory(parameter))
        if use is not None:
            for number in (use.output, *(n for _, n in use.inputs)):
                self.equal(PINNED, number)
            for tensor in (use.weight, use.bias):
                if tensor is not None:
                    self._uses[_memory(tensor)] = None
        self._uses[_memory(parameter)] = None

    def absorb(self, weight: Tensor, bias: Tensor | None, inputs: Spans, **details: Any) -> int | None:
        """The scale of a map behind weights of their own, or None: parameters that are used again stay as they are."""
        parameters = [p for p in (weight, bias) if p is not None]
        if any(_memory(p) in self._uses for p in parameters):
            for p in parameters:
                self.freeze(p)
            return None
        use = Use(path=self.path, weight=weight, bias=bias, inputs=inputs, output=self.scales.new(), **details)
        self._uses.update({_memory(p): use for p in parameters})
        return use.output

    def norm_gives(self, out: Tensor, beta: Tensor | None) -> None:
        if beta is not None:
            self._betas[id(out)] = beta

    def _own_scale(self, parameter: Tensor) -> int:
        """The scale of a parameter that is itself a map."""
        number = self.absorb(parameter, None, [], kind='map')
        return PINNED if number is None else number

    # The forward pass

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        tensors = list(tensors_in((args, kwargs)))
        versions = [t._version for t in tensors]
        out = func(*args, **kwargs)
        written = [t for t, version in zip(tensors, versions, strict=True) if t._version != version]
        self._see(Call(func, args, kwargs, out, tensors, written))
        return out

    def _see(self, call: Call) -> None:
        name, results = getattr(call.func, '__name__', ''), list(tensors_in(call.out))
        if not results and not call.written:
            if name not in _METADATA:  # a number that was read may decide anything
                self.pin(*call.tensors)
            return
        if not call.tensors or name in _FROM_SHAPE:
            for result in results:
                self.put(result, [(0, PINNED)])
            return
        rule = self._rules.get(call.func)
        in_place = not call.written or (len(call.written) == 1 and call.written[0] is call.tensors[0] is call.out)
        if rule is None or not in_place or not rule(self, call):
            self.pin(*call.tensors)
            for result in results:
                if id(result) not in self._parameters:
                    self.put(result, [(0, PINNED)])
        for tensor in call.written:
            self._share(tensor)

    def _share(self, written: Tensor) -> None:
        """Gives what shares the memory of a changed map the same scale."""
        for other in self._alive.get(_memory(written), []):
            if other is not written and id(other) in self._spans:
                self.equal(self.one(written), self.one(other))

    def _keep(self, tensor: Tensor) -> None:
        self._alive.setdefault(_memory(tensor), []).append(tensor)

    # Modules

    def _follow(self, module: nn.Module, path: str) -> Iterator[Any]:
        is_attention = path in self._layers

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._stack.append(self.path)
            self.path = path
            self._inside += is_attention
            if isinstance(module, AttentionLayer) and self._inside == 1:
                if not args:
                    raise CannotFold(f'{path} takes its map by keyword')
                factors.append(self._start(module, path, self._betas.get(id(args[0]))))

        def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if is_attention and self._inside == 1:
                behind = self.scales.new(weight=2)  # in doubt what is in front of the layer is scaled
                factor: Scale = Fraction(factors.pop()).limit_denominator(1024)
                if path in self._gated:
                    factor = factor / Gated(Fraction(1), ((path, 1),))
                self.scales.relate(self.one(args[0]), behind, factor, path)
                self.put(out, [(0, behind)])
                self.reached.add(path)
            self._inside -= is_attention  # last: the operations above are no part of the model
            self.path = self._stack.pop()

        factors: list[float] = []
        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() or id(tensor)


# Without a tensor as result these tell nothing of its values; '__get__' is any attribute.
_METADATA = frozenset(
    ('__get__', '__len__', 'size', 'dim', 'ndimension', 'numel', 'nelement', 'stride', 'get_device', 'is_contiguous')
) | {'is_floating_point', 'is_complex', 'is_tensor', 'storage_offset', 'element_size', 'type', 'is_same_size'}
# These take the shape of a map, not its values.
_FROM_SHAPE = frozenset(f'new_{kind}' for kind in ('empty', 'zeros', 'ones', 'full', 'tensor')) | frozenset(
    f'{kind}_like' for kind in ('empty', 'zeros', 'ones', 'full', 'rand', 'randn')
)
