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
NET, PLAIN_ROWS = 'resnet50', ('plain', 'resnet50')
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
    eager, engines = overheads('eager'), {}
    for engine in ('onnxruntime', 'openvino'):
        engines |= {engine: found} if (found := overheads(engine)) else {}
    rows = []
    for key, row in ATTENTION.items():
        best, page = best_checkpoint(f'{NET}_{key}'), PAGES.get(key, key)
        rows.append(
            [
                f'[{TITLES.get(key, ATTENTION[key].layer.__name__)}]({pages}{page}.md) `_{key}`',
                paper_link(key),
                SITES[row.site],
                _added(f'{NET}_{key}', NET),
                f'{best.metrics[0]["top1"]:.2f}' if best else 'none, `from_`',
                eager.get(key, 'not measured'),
                _best_engine(engines, key),
            ]
        )
    head = ['attention', '', 'where', 'parameters', 'top-1 %', 'time, eager', 'time, fastest engine']
    return table(head, rows, left=3)


def best_checkpoint(name: str) -> Checkpoint | None:
    """The published ImageNet weights of a model with the highest top-1."""
    found = [c for c in checkpoints() if c.name == name and c.metrics[0]['dataset'] == 'ImageNet-1k']
    return max(found, key=lambda c: float(c.metrics[0]['top1']), default=None)


def overheads(engine: str) -> dict[str, str]:
    """By attention the time that a ResNet-50 takes longer for one image in an engine, of the newest run that has it."""
    found: dict[str, str] = {}
    for run in benchmark_runs():
        for row in run['rows']:
            key = _attention_of_row(row, engine)
            if key:
                found[key] = f'{100 / row["speed"] - 100:+.0f} %'
    return found


def benchmark_runs() -> Iterator[Mapping[str, Any]]:
    """The runs of results/benchmark/ on CPUs, the oldest first."""
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(BENCHMARKS.glob('*.json'))]
    yield from sorted((run for run in runs if not run['environment']['gpu']), key=lambda r: r['environment']['date'])


def _attention_of_row(row: Mapping[str, Any], engine: str) -> str | None:
    """The attention that a row of a benchmark measures at inference, one image, in an engine; None for other rows."""
    case, variant = row['case'].split('/'), row['variant'].removeprefix(f'{NET}_')
    one_image = case[-1] == 'b1' and NET in case or case[-2:] == ['table3', NET]
    wanted = one_image and (engine in case if engine != 'eager' else len(case) == 3)
    return variant if wanted and variant in ATTENTION and row['reference'] in PLAIN_ROWS else None


def _best_engine(engines: Mapping[str, Mapping[str, str]], key: str) -> str:
    for engine, found in engines.items():
        if key in found:
            return f'{found[key]} ({engine})'
    return 'not measured'


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
    measured = [
        f'`_{key}` {found[key]} in {engine}'
        for engine in ('eager', 'onnxruntime', 'openvino')
        if (found := overheads(engine))
        for key in keys
        if key in found
    ]
    said = ', '.join(measured) or 'not measured'
    return f'Time at inference, ResNet-50, one image, over the plain net: {said} ([benchmarks](../benchmarks.md)).'


def starts(*keys: str) -> str:
    """The `from_` tags of the nets with an attention, the default of each net."""
    names = [name for key in keys for name in timm.list_pretrained(f'*_{key}.from_*')]
    return ', '.join(f'`{name}`' for name in names) or 'none'
