#!/usr/bin/env python3
"""Writes the tables of README.md and docs/ from the zoo, the manifest and results/; --check says if they are new."""

import functools
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attention_tables import cost_table, starts, time_line, which_table
from markdown_tables import new_text, table
from speed_tables import compiled_speeds, engine_tables, engines_table, measured_speeds, of_benchmarks, printed_speeds
from zoo_tables import checkpoint_table, without_weights, zoo_table

from results import compare, load_results
from timm_attn import paper

ROOT = Path(__file__).resolve().parents[1]
WARM_START = ROOT / 'results' / 'warm_start' / 'cifar_resnet20.json'
# The pages of docs/attention/ and the keys that each is about
PAGES = {key: (key,) for key in ('se', 'cbam', 'eca', 'gc', 'srm', 'simam')} | {'bam': ('bam', 'bam_mul', 'bamc')}


def family_table() -> str:
    """The bundled nets, trained alike on Fashion-MNIST."""
    rows = compare(load_results(ROOT / 'results' / 'fashion_mnist'), 'cifar_resnet20')
    return table(list(rows[0]), [list(row.values()) for row in rows])


def recipes_table() -> str:
    """The bundled recipes and the first paragraph of each."""
    files = sorted((ROOT / 'timm_attn' / 'training' / 'recipes').glob('*.yaml'))
    return table(['`--config`', 'for'], [[f'`{path.stem}`', _about(path)] for path in files], left=2)


def _about(recipe: Path) -> str:
    comment = itertools.takewhile(lambda line: line.startswith('# '), recipe.read_text(encoding='utf-8').splitlines())
    return ' '.join(line.removeprefix('# ') for line in comment).replace('*', r'\*')


@functools.cache
def paper_text() -> str:
    """What `timm-attn paper` prints."""
    return paper.tables('md')


def paper_tables() -> str:
    """Every printed table beside our counts; the headings one level down."""
    *lines, _, _ = paper_text().splitlines()
    return '\n'.join(lines)


def paper_line() -> str:
    return f'> {paper_text().splitlines()[-1]}'


def warm_start_table() -> str:
    """A row per net and start: accuracy before and after an epoch, and the loss of the first steps."""
    run = json.loads(WARM_START.read_text(encoding='utf-8'))
    about = f'{run["date"]}, {run["hardware"]}, torch {run["torch"]}, {len(run["seeds"])} seeds:'
    rows = [
        [row['net'], row['start'], _mean_sd(row['before']), _mean_sd(row['after']),
         ' '.join(f'{loss:.3f}' for loss in row['first_losses'])]
        for row in run['rows']
    ]  # fmt: skip
    head = ['net', 'start', 'top-1 % at the start', 'after one epoch', 'loss of steps 1 to 5']
    return f'{about}\n\n{table(head, rows)}'


def _mean_sd(values: Sequence[float]) -> str:
    return f'{statistics.fmean(values):.2f} ({statistics.stdev(values):.2f})'


def attention_page(name: str, keys: Sequence[str]) -> Mapping[str, Callable[[], str]]:
    """The tables of an attention's page."""
    return {
        f'cost {name}': lambda: cost_table(*keys),
        f'time {name}': lambda: time_line(*keys),
        f'checkpoints {name}': lambda: checkpoint_table(*keys),
        f'starts {name}': lambda: starts(keys[0]),
    }


# The tables of each file by the names of their markers
FILES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    'README.md': {'which': lambda: which_table('docs/attention/')},
    'docs/attention/index.md': {'which': lambda: which_table('')},
    **{f'docs/attention/{name}.md': attention_page(name, keys) for name, keys in PAGES.items()},
    'docs/zoo.md': {'zoo': zoo_table},
    'docs/weights.md': {'checkpoints': checkpoint_table, 'without': without_weights},
    'docs/train.md': {'recipes': recipes_table, 'family': family_table},
    'docs/deploy.md': {'engines': engines_table},
    'docs/papers.md': {'paper': paper_line, 'tables': paper_tables},
    'docs/benchmarks.md': {
        'engines': engine_tables,
        'speed': lambda: of_benchmarks(measured_speeds),
        'compiled': lambda: of_benchmarks(compiled_speeds),
        'table 3': lambda: of_benchmarks(printed_speeds),
    },
    'docs/warm_start.md': {'evidence': warm_start_table},
}


def main() -> int:
    outdated = 0
    for file, tables in FILES.items():
        text = (ROOT / file).read_text(encoding='utf-8')
        new = new_text(text, file, {name: content() for name, content in tables.items()})
        if '--check' in sys.argv:
            print(f'{file} is current' if new == text else f'{file} is out of date: run scripts/readme_tables.py')
            outdated += new != text
        else:
            (ROOT / file).write_text(new, encoding='utf-8')
    return int(outdated > 0)


if __name__ == '__main__':
    sys.exit(main())
