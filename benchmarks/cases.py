"""The cases of the benchmark: sets of variants that do the same work and are timed in turn."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch

from benchmarks import engines, nets, operations
from benchmarks.measure import Clock, Runner
from timm_attn import ATTENTION
from timm_attn.paper.speed import Speed, printed_speeds


@dataclass(frozen=True)
class Case:
    """A row of the benchmark.

    Args:
        name: 'cpu/...' or 'cuda/...', what `--only` matches.
        title: what it is, in words.
        build: its variants, ready to run.
        reference: the variant that the others are compared with.
        unit: of the work per second, and the factor to it.
        rounds: in the full run, all starts together.
        quick: rounds of `--quick`, in this process; 0 leaves it out.
        starts: the fresh processes that the full run measures it in, one after another; 0 measures it in this one.
        compiled: it is measured with `--compile` only.
        engines: it is measured with `--engines` only.
        paper: the printed frames per second of its variants, if it is one of a paper's rows.
        clock: of its speeds and rates.
        beside: further references: a column's name, and from a variant to the one that it is compared with.
    """

    name: str
    title: str
    build: Callable[[], Mapping[str, Runner]]
    reference: str
    unit: tuple[str, float] = ('images/s', 1)
    rounds: int = 20
    quick: int = 0
    starts: int = 0
    compiled: bool = False
    engines: bool = False
    paper: tuple[Speed, ...] = ()
    clock: Clock = 'wall'
    beside: Mapping[str, Callable[[str], str]] = field(default_factory=dict, hash=False)

    @property
    def device(self) -> str:
        return self.name.split('/')[0]

    @property
    def picture(self) -> str:
        """Which of the pictures shows it, a key of PICTURES."""
        return {'op': 'operation', 'table3': 'table3', 'engines': 'engines'}.get(self.name.split('/')[1], 'nets')


PICTURES: Mapping[str, str] = {
    'operation': "SimAM by its paths, beside the paper's formula",
    'nets': 'ResNet-50 with attention: inference, fused, compiled, training',
    'table3': 'The nets of SimAM Table 3',
    'engines': 'Nets in the engines that run nets on a CPU',
}


RESNET50: Mapping[str, nets.Variant] = {
    'plain': nets.named('resnet50'),
    'simam': nets.named('resnet50_simam'),
    'simam, formula': nets.with_formula('resnet50', e_lambda=0.1),
    'se': nets.named('resnet50_se'),
    'se, timm': nets.with_timm_layer('resnet50', 'se', rd_divisor=1, bias=False),
    'eca': nets.named('resnet50_eca'),
    'eca, timm': nets.with_timm_layer('resnet50', 'eca'),
    'cbam': nets.named('resnet50_cbam'),
    'cbam, timm': nets.with_timm_layer('resnet50', 'cbam', mlp_bias=True),
}
FUSED: Mapping[str, nets.Variant] = {
    'plain': nets.named('resnet50'),
    'fused plain': nets.fused('resnet50'),
    'fused simam': nets.fused('resnet50_simam'),
    'fused se': nets.fused('resnet50_se'),
    'fused eca': nets.fused('resnet50_eca'),
}
# A minute each; torch.compile takes at most 8 nets of one class
COMPILED_ON_CPU = {name: nets.compiled(RESNET50[name]) for name in ('plain', 'simam', 'se', 'eca', 'cbam')}
COMPILED = {name: nets.compiled(net) for name, net in RESNET50.items() if 'cbam' not in name}
BFLOAT16 = torch.bfloat16
STARTS = 3  # where the weights of a net lie in memory moves a ratio by up to 5 % from one process to the next

# device, work, shape, memory format, rounds of --quick
OPERATIONS = [
    (device, *row)
    for device in ('cpu', 'cuda')
    for row in (
        ('forward', (16, 64, 56, 56), torch.contiguous_format, 15),
        ('forward', (1, 512, 7, 7), torch.contiguous_format, 30),
        ('training', (8, 64, 56, 56), torch.contiguous_format, 15),
        ('forward', (16, 64, 56, 56), torch.channels_last, 5),
        ('forward', (1, 512, 7, 7), torch.channels_last, 5),
        ('training', (8, 64, 56, 56), torch.channels_last, 5),
    )
]
# work, dtype, memory format
BANDWIDTHS = [
    (work, *row)
    for row in (
        (torch.float32, torch.contiguous_format),
        (torch.float32, torch.channels_last),
        (torch.float16, torch.contiguous_format),
        (torch.bfloat16, torch.contiguous_format),
    )
    for work in ('forward', 'backward')
]
BANDWIDTH_SHAPE = (128, 256, 56, 56)  # far beyond a GPU's cache
# name, batch, variants, autocast's dtype, rounds, rounds of --quick, under torch.compile
INFERENCES: Sequence[tuple[str, int, Mapping[str, nets.Variant], torch.dtype | None, int, int, bool]] = (
    ('cpu/resnet50', 1, RESNET50, None, 30, 15, False),
    ('cpu/resnet50', 8, RESNET50, None, 12, 0, False),
    ('cpu/fuse', 1, FUSED, None, 30, 15, False),
    ('cpu/fuse', 8, FUSED, None, 15, 0, False),
    ('cpu/compiled', 1, COMPILED_ON_CPU, None, 30, 0, True),
    ('cpu/compiled', 8, COMPILED_ON_CPU, None, 12, 0, True),
    ('cuda/resnet50', 1, RESNET50, None, 30, 15, False),
    ('cuda/resnet50', 8, RESNET50, None, 30, 0, False),
    ('cuda/resnet50', 128, RESNET50, None, 30, 15, False),
    ('cuda/resnet50', 128, RESNET50, BFLOAT16, 30, 0, False),
    ('cuda/fuse', 1, FUSED, None, 30, 15, False),
    ('cuda/fuse', 8, FUSED, None, 30, 0, False),
    ('cuda/fuse', 128, FUSED, None, 30, 0, False),
    ('cuda/compiled', 128, COMPILED, None, 30, 0, True),
    ('cuda/compiled', 128, COMPILED, BFLOAT16, 30, 0, True),
)
# not bamc: with random weights its 16 sums of maps turn a change of 1e-7 of the images into one of 3 % of the logits
_ALL_OF_RESNET50 = engines.nets_of('resnet50', 'resnet50', [key for key in ATTENTION if key != 'bamc'])
_OF_RESNET50 = engines.nets_of('resnet50', 'resnet50', ('simam', 'se', 'eca', 'cbam', 'bam'))
_OF_MOBILENETV2 = engines.nets_of('mobilenetv2_100', 'mobilenetv2', ('simam', 'eca'))
# backbone, its nets by what they add, batch, rounds; the chooser shows every attention with one image
ENGINES: Sequence[tuple[str, Mapping[str, str], int, int]] = (
    ('resnet50', _ALL_OF_RESNET50, 1, 20),
    ('mobilenetv2', _OF_MOBILENETV2, 1, 40),
    ('mobilenetv2', _OF_MOBILENETV2, 8, 12),
    ('resnet50', _OF_RESNET50, 8, 5),
)
# name, batch, autocast's dtype, rounds
TRAININGS: Sequence[tuple[str, int, torch.dtype | None, int]] = (
    ('cpu/resnet50/training', 8, None, 7),
    ('cuda/resnet50/training', 64, None, 15),
    ('cuda/resnet50/training', 64, BFLOAT16, 15),
)
_DEVICES = {'cpu': 'CPU', 'cuda': 'GPU'}
_WORK = {'forward': 'forward', 'backward': 'backward', 'training': 'forward + backward'}
_KINDS = {'resnet50': 'resnet50', 'fuse': 'fuse(resnet50)', 'compiled': 'compiled resnet50'}
# What an option adds to a case's name and, after a comma, to its title
_OPTIONS = {
    torch.contiguous_format: '',
    torch.channels_last: 'channels_last',
    None: '',
    torch.float32: '',
    torch.float16: 'fp16',
    torch.bfloat16: 'bf16',
}
_GB = ('GB/s', 1e-9)


def choose(*, quick: bool, only: str, compiled: bool, engines: bool = False) -> list[Case]:
    """The cases of a run, in order; `only` is a glob of their names.

    Raises:
        ValueError: no case of such a run matches.
    """
    asked = [c for c in all_cases() if (compiled or not c.compiled) and (engines or not c.engines)]
    cases = [c for c in asked if c.quick or not quick]
    found = [c for c in cases if fnmatch.fnmatchcase(c.name, only)]
    if not found:
        raise ValueError(f'No case of this run matches {only!r}: choose from {", ".join(c.name for c in cases)}.')
    return found


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case there is."""
    rows = (*_operations(), *_bandwidths(), *_inferences(), *_trainings(), *_table3(), *_engines())
    return tuple(replace(case, starts=STARTS) for case in rows)


def _named(name: str, title: str, *options: Any) -> tuple[str, str]:
    """A case's name and title with its options."""
    device, added = name.split('/')[0], [_OPTIONS[option] for option in options if _OPTIONS[option]]
    return '/'.join([name, *added]), ', '.join([title, *added, _DEVICES[device]])


def _operations() -> Iterator[Case]:
    for device, work, shape, layout, quick in OPERATIONS:
        size = 'x'.join(map(str, shape))
        names = _named(f'{device}/op/{work}/{size}', f'SimAM {_WORK[work]}, {size}', layout)
        build = partial(operations.simam_runners, work, shape, device, memory_format=layout)
        yield Case(*names, build, operations.FORMULA, _GB, rounds=40, quick=quick)


def _bandwidths() -> Iterator[Case]:
    size = 'x'.join(map(str, BANDWIDTH_SHAPE))
    for work, dtype, layout in BANDWIDTHS:
        names = _named(f'cuda/op/bandwidth/{work}', f'SimAM {_WORK[work]}, {size}, bandwidth', dtype, layout)
        build = partial(
            operations.simam_runners, work, BANDWIDTH_SHAPE, 'cuda', memory_format=layout, dtype=dtype, copy=True
        )
        yield Case(*names, build, operations.COPY, _GB, quick=10)


def _inferences() -> Iterator[Case]:
    for stem, batch, variants, amp, rounds, quick, compiled in INFERENCES:
        device, kind = stem.split('/')
        names = _named(f'{stem}/b{batch}', f'{_KINDS[kind]}, inference, batch {batch}', amp)
        build = partial(nets.inference_runners, variants, batch, device, amp=amp)
        yield Case(*names, build, 'plain', rounds=rounds, quick=quick, compiled=compiled)


def _trainings() -> Iterator[Case]:
    for stem, batch, amp, rounds in TRAININGS:
        names = _named(f'{stem}/b{batch}', f'resnet50, training step, batch {batch}', amp)
        build = partial(nets.training_runners, RESNET50, batch, stem.split('/')[0], amp=amp)
        yield Case(*names, build, 'plain', rounds=rounds)


def _table3() -> Iterator[Case]:
    speeds: dict[str, list[Speed]] = {}
    for speed in printed_speeds():
        speeds.setdefault(speed.base, []).append(speed)
    for device in ('cpu', 'cuda'):
        for base, rows in speeds.items():
            names = _named(f'{device}/table3/{base}', f'{rows[0].row}, SimAM Table 3, one image')
            build = partial(nets.inference_runners, {row.model: nets.named(row.model) for row in rows}, 1, device)
            yield Case(*names, build, base, paper=tuple(rows))


def _engines() -> Iterator[Case]:
    for backbone, nets_of, batch, rounds in ENGINES:
        names = _named(f'cpu/engines/{backbone}/b{batch}', f'{backbone} in the engines, batch {batch}')
        build = partial(engines.engine_runners, nets_of, batch)
        beside = {'to_plain': engines.plain_in_the_engine, 'to_eager': engines.eager_of_the_net}
        yield Case(*names, build, engines.REFERENCE, rounds=rounds, quick=min(rounds, 3) if batch == 1 else 0,
                   engines=True, clock='cpu', beside=beside)  # fmt: skip
