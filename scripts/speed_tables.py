"""The tables of docs/benchmarks.md, from results/benchmark/."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markdown_tables import table

BENCHMARKS = Path(__file__).resolve().parents[1] / 'results' / 'benchmark'
# The columns of the table of docs/deploy.md
SHORT = {
    'eager': 'eager',
    'channels_last': 'channels_last',
    'fuse': '`timm_attn.fuse`',
    'compile': 'torch.compile',
    'compile, freezing': 'with freezing',
    'onnxruntime': 'ONNX Runtime',
    'OpenVINO': 'OpenVINO',
}


def measured_speeds(numbers: Mapping[str, Any]) -> str:
    """The targets that a benchmark could measure."""
    rows = [
        [
            row['what'],
            f'{"at most" if row["quantity"] == "saved_inputs" else "at least"} {row["target"]:.4g}',
            f'{row["measured"]:.3g} ({row["measured_q1"]:.3g} to {row["measured_q3"]:.3g})',
            '' if row['elsewhere'] is None else f'{row["elsewhere"]:.3g}',
            row['verdict'],
        ]
        for row in numbers['targets']
        if row['measured'] is not None
    ]
    return table(['speed ratio', 'target', 'measured (quartiles)', "the formula, or timm's layer", ''], rows)


def printed_speeds(numbers: Mapping[str, Any]) -> str:
    """Images per second of SimAM Table 3 beside those of a benchmark, if it has them."""
    rows = [row for row in numbers['rows'] if row['paper_fps'] is not None]
    if not rows:
        return ''
    plain = {row['case']: row['paper_fps'] for row in rows if row['variant'] == row['reference']}
    lines = [
        [
            f'`{row["variant"]}`',
            f'{row["paper_fps"]:.0f}',
            f'{row["paper_fps"] / plain[row["case"]]:.2f}',
            f'{row["rate"]:.1f}',
            f'{row["speed"]:.2f}',
        ]
        for row in rows
    ]
    return table(['one image', 'printed FPS', 'to the plain net', 'FPS here', 'to the plain net'], lines)


def compiled_speeds(numbers: Mapping[str, Any]) -> str:
    """The nets under torch.compile beside the compiled plain net, one row per net, one column per case."""
    rows = [row for row in numbers['rows'] if '/compiled/' in row['case'] and row['variant'] != row['reference']]
    if not rows:
        return ''
    cases = list(dict.fromkeys(row['case'] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        quartiles = f'{row["speed_q1"]:.3g} to {row["speed_q3"]:.3g}'
        lines.setdefault(f'`resnet50_{row["variant"]}`', []).append(f'{row["speed"]:.3g} ({quartiles})')
    heads = [case.partition('/compiled/b')[2].replace('/', ', ') for case in cases]
    return table(
        ['to the compiled plain net', *(f'batch {head}' for head in heads)], [[k, *v] for k, v in lines.items()]
    )


def engines_table() -> str:
    """A row per net, a column per engine: one image, the speed beside timm's plain net in eager torch, by CPU time.

    In brackets the speed beside the plain net in the same engine; blank is not measured.
    """
    run = _engine_run()
    nets: dict[str, dict[str, str]] = {}
    for row in run['rows']:
        if row['case'] in _engine_cases(run) and row['case'].endswith('/b1'):
            net, engine = row['variant'].split('/')
            cell = f'{row["speed"]:.2f} ({row["to_plain"]:.2f})'
            nets.setdefault(_net(row['case'], net), {})[engine] = cell
    shown = [engine for engine in SHORT if any(engine in cells for cells in nets.values())]
    lines = [[net, *(cells.get(engine, '') for engine in shown)] for net, cells in nets.items()]
    head = ['one image of 224 x 224', *(SHORT[engine] for engine in shown)]
    return f'{_hardware(run["environment"])}\n\n{table(head, lines)}'


def engine_tables() -> str:
    """Every net in every engine: times by both clocks, and the ratios by CPU time; medians (quartiles)."""
    run = _engine_run()
    parts = [_hardware(run['environment'])]
    head = [
        'net, engine',
        'CPU ms',
        'wall ms',
        "to timm's plain eager net",
        'to plain, same engine',
        'to eager, same net',
    ]
    for case in _engine_cases(run):
        rows = [row for row in run['rows'] if row['case'] == case]
        lines = []
        for row in rows:
            net, engine = row['variant'].split('/')
            columns = [_spread(row, c, '.3g') for c in ('cpu_ms', 'ms')]
            ratios = [_spread(row, c, '.2f') for c in ('speed', 'to_plain', 'to_eager')]
            lines.append([f'{_net(case, net)}, {engine}', *columns, *ratios])
        backbone, batch = case.split('/')[2:]
        parts += [f'{backbone}, batch {batch[1:]}, {rows[0]["rounds"]} rounds:', table(head, lines)]
    return '\n\n'.join(parts)


def _engine_run() -> Mapping[str, Any]:
    return json.loads((BENCHMARKS / 'engines.json').read_text(encoding='utf-8'))


def _engine_cases(run: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row['case'] for row in run['rows'] if '/engines/' in row['case']))


def _net(case: str, net: str) -> str:
    """The name that timm.create_model takes."""
    backbone = case.split('/')[2]
    plain = {'mobilenetv2': 'mobilenetv2_100'}.get(backbone, backbone)
    return f'`{plain if net == "plain" else f"{backbone}_{net}"}`'


def _spread(row: Mapping[str, Any], column: str, form: str) -> str:
    return f'{row[column]:{form}} ({row[f"{column}_q1"]:{form}} to {row[f"{column}_q3"]:{form}})'


def of_benchmarks(content: Callable[[Mapping[str, Any]], str]) -> str:
    """A table for every benchmark in results/ that has it, under a line that says when and where it ran."""
    files = sorted(BENCHMARKS.glob('*.json'))
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in files]
    found = ((run['environment'], content(run)) for run in runs)
    return '\n\n'.join(f'{_hardware(environment)}\n\n{text}' for environment, text in found if text)


def _hardware(environment: Mapping[str, Any]) -> str:
    e = environment
    cpu = ' with '.join(filter(None, (e['cpu'], e.get('instructions'))))
    where = e['gpu'] or f'{cpu}, {e["cores"]} cores, {e["threads"]} thread{"s" * (e["threads"] > 1)}'
    versions = ''.join(f', {name} {e[name]}' for name in ('onnxruntime', 'openvino') if name in e)
    return f'{e["date"][:10]}, {where}, torch {e["torch"]}{versions}, load average before {e["load_before"][0]}:'
