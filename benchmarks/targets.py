"""The targets of the benchmark."""

import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.measure import Spread

Judge = Callable[[float, float], bool]
JUDGES: Mapping[str, Judge] = {'speed': operator.ge, 'saved_inputs': operator.le}


@dataclass(frozen=True)
class Target:
    """A limit for one variant of a case.

    Args:
        what: the row's name in the printed table.
        case, variant: as in cases.all_cases().
        limit: that the median must reach ('speed') or must not exceed ('saved_inputs').
        against: the variant that it is compared with; by default the case's reference.
        elsewhere: the variant that is the best implementation elsewhere; '' where there is none.
        quantity: 'speed', the ratio of two rates, or a column of Runner.memory.
    """

    what: str
    case: str
    variant: str
    limit: float
    against: str = ''
    elsewhere: str = ''
    quantity: str = 'speed'

    def verdict(self, measured: Spread) -> str:
        return 'met' if JUDGES[self.quantity](measured.median, self.limit) else 'missed'


def _nets(case: str, what: str, limits: Mapping[str, float]) -> tuple[Target, ...]:
    elsewhere = {'simam': 'simam, formula', 'se': 'se, timm', 'eca': 'eca, timm', 'cbam': 'cbam, timm'}
    return tuple(
        Target(f'resnet50_{net} / resnet50, {what}', case, net, limit, elsewhere=elsewhere[net])
        for net, limit in limits.items()
    )


def _fused(case: str, what: str, eager: float, folded: float) -> tuple[Target, ...]:
    return tuple(
        Target(f'fuse(resnet50_{net}) / {against}, {what}', case, f'fused {net}', limit, against=against)
        for against, limit in (('plain', eager), ('fused plain', folded))
        for net in ('simam', 'se', 'eca')
    )


def _all(limit: float) -> dict[str, float]:
    return dict.fromkeys(('simam', 'se', 'eca'), limit)


def _in_engines() -> Iterator[Target]:
    """Attention beside the plain net of the same engine."""
    both = ('onnxruntime', 'OpenVINO')
    for net, backbone, engines, limit in (
        ('simam', 'resnet50', both, 0.97),
        ('se', 'resnet50', both, 0.97),
        ('eca', 'resnet50', both, 0.97),
        ('cbam', 'resnet50', both[:1], 0.92),
        ('simam', 'mobilenetv2', both, 0.80),
    ):
        for engine in engines:
            for batch in (1, 8):
                what = f'{backbone}_{net} / {backbone} in {engine}, batch {batch}'
                yield Target(what, f'cpu/engines/{backbone}/b{batch}', f'{net}/{engine}', limit, f'plain/{engine}')
    for net, limit in EAGER.items():
        yield Target(f'resnet50_{net} / resnet50, eager, batch 1', 'cpu/engines/resnet50/b1', f'{net}/eager', limit)


EAGER = {'simam': 0.97, 'se': 0.95, 'eca': 0.95, 'cbam': 0.90}
OP, TRAINING = 'cpu/op/forward', 'cpu/op/training/8x64x56x56'
TARGETS: tuple[Target, ...] = (
    Target('SimAM forward, 16x64x56x56 / formula', f'{OP}/16x64x56x56', 'simam', 4, elsewhere='formula'),
    Target('SimAM forward, 1x512x7x7 / formula', f'{OP}/1x512x7x7', 'simam', 1, elsewhere='formula'),
    Target('SimAM forward + backward, 8x64x56x56 / formula', TRAINING, 'simam', 2.5, elsewhere='formula'),
    Target(
        'SimAM saved for backward, in inputs (1 + 2 numbers per channel)', TRAINING, 'simam', 1 + 2 / (56 * 56),
        elsewhere='formula', quantity='saved_inputs',
    ),
    *_nets('cpu/resnet50/b1', 'inference, batch 1', EAGER),
    *_nets('cpu/resnet50/b8', 'inference, batch 8', {'simam': 0.95, 'se': 0.95, 'eca': 0.95, 'cbam': 0.88}),
    *_nets('cpu/resnet50/training/b8', 'training step, batch 8', _all(0.95)),
    *_fused('cpu/fuse/b1', 'batch 1', 1.06, 0.97),
    *_fused('cpu/fuse/b8', 'batch 8', 1.12, 0.97),
    *_in_engines(),
    Target('GPU: SimAM forward, bandwidth / a copy', 'cuda/op/bandwidth/forward', 'simam', 0.8, elsewhere='formula'),
    Target('GPU: SimAM backward, bandwidth / a copy', 'cuda/op/bandwidth/backward', 'simam', 0.8, elsewhere='formula'),
    *_nets('cuda/resnet50/b128', 'GPU inference, batch 128', _all(0.97)),
    *_nets('cuda/resnet50/b128/bf16', 'GPU bf16 inference, batch 128', _all(0.97)),
    *_nets('cuda/compiled/b128', 'GPU compiled, batch 128', _all(0.95)),
    *_nets('cuda/compiled/b128/bf16', 'GPU bf16 compiled, batch 128', _all(0.95)),
    *_nets('cuda/resnet50/training/b64/bf16', 'GPU bf16 training step, batch 64', _all(0.95)),
)  # fmt: skip


def targets_of(cases: Collection[str]) -> list[Target]:
    """The targets of these cases."""
    return [target for target in TARGETS if target.case in cases]
