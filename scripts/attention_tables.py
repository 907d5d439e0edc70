"""The tables about attentions: which one to use, and what each costs."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
from markdown_tables import table
from zoo_tables import parameters

from timm_attn import ATTENTION
from timm_attn.weights import checkpoints
from timm_attn.weights.manifest import Checkpoint

BENCHMARKS = Path(__file__).resolve().parents[1] / 'results' / 'benchmark'
NET, NOT_MEASURED = 'resnet50', 'not measured'
CASES = tuple(f'cpu/{case}' for case in (f'table3/{NET}', f'{NET}/b1', f'engines/{NET}/b1'))
# The page of each attention in docs/attention/, where it differs from the key
PAGES = {'bam_mul': 'bam', 'bamc': 'bam'}
TITLES = {'bam': 'BAM', 'bam_mul': "BAM, authors' code", 'bamc': 'BAM in every block'}
SITES = {
    'conv': 'after a 3x3 conv',
    'block': 'end of each block',
    'stage': 'between stages',
}
SIMAM = 'https://proceedings.mlr.press/v139/yang21o.html'
COSTS = ('resnet18', 'resnet50', 'resnet101', 'mobilenetv2', 'cifar_resnet20')


def paper_link(key: str) -> str:
    """The paper of an attention, as a link."""
    paper = ATTENTION[key].paper
    number = paper.removeprefix('arXiv:')
    return f'[paper](https://arxiv.org/abs/{number})' if number != paper else f'[paper]({SIMAM})'


def which_table(pages: str) -> str:
    """A row per attention: paper, place, parameters added to ResNet-50, best weights that load, time at inference.

    Args:
        pages: the folder of the attentions' pages, as seen from the file with the table.
    """
    rows, eager = [], overheads('eager')
    for key, row in ATTENTION.items():
        best, page = best_checkpoint(f'{NET}_{key}'), PAGES.get(key, key)
        rows.append(
            [
                f'[{TITLES.get(key, ATTENTION[key].layer.__name__)}]({pages}{page}.md) `_{key}`',
                paper_link(key),
                SITES[row.site],
                _added(f'{NET}_{key}', NET),
                f'{best.metrics[0]["top1"]:.2f}' if best else 'none, `from_`',
                _time(eager.get(key)),
                _in_fastest_engine(key),
            ]
        )
    head = ['attention', '', 'where', 'parameters', 'top-1 %', 'time, eager', 'time, fastest engine']
    return table(head, rows, left=3)


def best_checkpoint(name: str) -> Checkpoint | None:
    """The published ImageNet weights of a model with the highest top-1."""
    found = [c for c in checkpoints() if c.name == name and c.metrics[0]['dataset'] == 'ImageNet-1k']
    return max(found, key=lambda c: float(c.metrics[0]['top1']), default=None)


def overheads(engine: str) -> dict[str, float]:
    """By attention the time, in percent, that a ResNet-50 takes longer for one image in an engine than the plain one.

    The newest run that has it counts; attentions that no run has are not in it.
    """
    found: dict[str, float] = {}
    for row in one_image_rows():
        key, _, of_engine = row['variant'].removeprefix(f'{NET}_').partition('/')
        if key in ATTENTION and (of_engine or 'eager') == engine:
            found[key] = 100 / row.get('to_plain', row['speed']) - 100
    return found


def fastest_engine(key: str) -> str | None:
    """The engine in which the newest run of engines is fastest with an attention; None where there is none."""
    speeds = {row['variant']: row['speed'] for row in one_image_rows() if row['variant'].startswith(f'{key}/')}
    best = max(speeds, key=lambda variant: speeds[variant], default='')
    return best.partition('/')[2] or None


def one_image_rows() -> Iterator[Mapping[str, Any]]:
    """The rows of results/benchmark/ for ResNet-50 at inference with one image on a CPU, the oldest first."""
    for run in benchmark_runs():
        yield from (row for row in run['rows'] if row['case'] in CASES)


def benchmark_runs() -> Iterator[Mapping[str, Any]]:
    """The runs of results/benchmark/ on CPUs, the oldest first."""
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(BENCHMARKS.glob('*.json'))]
    yield from sorted((run for run in runs if not run['environment']['gpu']), key=lambda r: r['environment']['date'])


def _in_fastest_engine(key: str) -> str:
    engine = fastest_engine(key)
    return _time(overheads(engine).get(key), f' ({engine})') if engine else NOT_MEASURED


def _time(percent: float | None, where: str = '') -> str:
    return NOT_MEASURED if percent is None else f'{percent:+.0f} %{where}'


def _added(name: str, plain: str) -> str:
    more = parameters(name) - parameters(plain)
    return f'{more:+,}' if more else '0'


def cost_table(*keys: str) -> str:
    """What attentions add to some backbones, in parameters and percent of the plain net's."""
    rows = []
    for stem in COSTS:
        plain = parameters('mobilenetv2_100' if stem == 'mobilenetv2' else stem)
        more = [parameters(f'{stem}_{key}') - plain for key in keys]
        rows.append([f'`{stem}`', f'{plain:,}', *(f'{n:+,} ({100 * n / plain:.2f} %)' if n else '0' for n in more)])
    return table(['backbone', 'plain', *(f'`_{key}`' for key in keys)], rows)


def time_line(*keys: str) -> str:
    """What attentions cost at inference, as far as it was measured."""
    eager = overheads('eager')
    said = '; '.join(
        f'`_{key}` {_time(eager.get(key))} in eager torch, {_in_fastest_engine(key)} in the fastest engine'
        for key in keys
    )
    return f'Time at inference, ResNet-50, one image, over the plain net: {said} ([benchmarks](../benchmarks.md)).'


def starts(*keys: str) -> str:
    """The `from_` tags of the nets with an attention, the default of each net."""
    names = [name for key in keys for name in timm.list_pretrained(f'*_{key}.from_*')]
    return ', '.join(f'`{name}`' for name in names) or 'none'
