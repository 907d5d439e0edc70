"""Statistics, result files and the table that they give; sweeps and curves."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from results import Result, compare, load_results, save_result, welch
from tests.support.commands import ROOT
from tests.support.images import MODEL, short, write_folders
from timm_attn import figures
from timm_attn.cli import main
from timm_attn.files import write_csv
from timm_attn.reports import confusion
from timm_attn.reports import sweep as report
from timm_attn.reports.curves import curves
from timm_attn.training import checkpoint, runner
from timm_attn.training.engine import NonFiniteLossError
from timm_attn.training.summary import Summary, summary
from timm_attn.training.sweep import sweep


def test_welch() -> None:
    a, b = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9], [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0]
    assert summary(a) == Summary(6, pytest.approx(21.0), pytest.approx(3.9653, abs=1e-4))
    # by hand: variances 15.724 / 6 and 4.2943 / 8, nu = 7.047, t = 2.361 (between 2.365 at 7 and 2.306 at 8)
    assert welch(a, b) == pytest.approx((-6.696, 1.696), abs=3e-3)
    assert welch([1.0], b) is None and welch([1.0, 1.0], [2.0, 2.0, 2.0]) is None


RESULT = Result(
    model='net', recipe='fashion_mnist', seed=0, epochs=12, dataset='Fashion-MNIST', split='test', images=10_000,
    top1=93.0, hardware='1 core', command='timm-attn train ...', date='2026-11-21', torch='2.15.0', timm='1.0.31',
)  # fmt: skip


def results(**top1: list[float]) -> list[Result]:
    return [replace(RESULT, model=m, seed=i, top1=v) for m, values in top1.items() for i, v in enumerate(values)]


def test_the_table_says_what_a_difference_is_worth() -> None:
    rows = compare(results(se=[93.5], eca=[93.0, 93.2, 93.4], net=[93.0, 93.1, 93.2], bam=[95.0, 95.1, 95.2]), 'net')
    table = {row['model']: row for row in rows}
    assert list(table) == ['`net`', '`se`', '`eca`', '`bam`']
    assert table['`net`']['minus plain [95 %]'] == '' and table['`net`']['sd'] == '0.10'
    assert table['`se`']['sd'] == '' and table['`se`']['seeds'] == 'n = 1'
    assert table['`se`']['minus plain [95 %]'] == '+0.40, no interval'
    assert table['`eca`']['minus plain [95 %]'].endswith(', inside the noise')
    assert table['`bam`']['minus plain [95 %]'] == '+2.00 [+1.77, +2.23]'
    with pytest.raises(ValueError, match="no result of 'plain' to compare with, only of net"):
        compare(results(net=[93.0]), 'plain')
    with pytest.raises(ValueError, match='different trainings'):
        compare([RESULT, replace(RESULT, seed=1, epochs=30)], 'net')


def test_result_files(tmp_path: Path) -> None:
    for result in results(net=[93.0, 93.1], se=[92.0]):
        save_result(result, tmp_path)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ['net.seed0.json', 'net.seed1.json', 'se.seed0.json']
    assert load_results(tmp_path) == results(net=[93.0, 93.1], se=[92.0])
    (tmp_path / 'z.json').write_text('{"model": "x"}')
    with pytest.raises(ValueError, match='z.json is not a result .*; it must have model, recipe, seed'):
        load_results(tmp_path)


def test_the_repository_s_results_are_of_one_training() -> None:
    assert compare(load_results(ROOT / 'results' / 'fashion_mnist'), 'cifar_resnet20')


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp('images'), 60)


def search(folders: Path, output: Path, **changes: Any) -> list[dict[str, Any]]:
    options: dict[str, Any] = dict(attn_kwarg='e_lambda', values=['1e-4', '1e-1'], repeats=2, holdout=20)
    return sweep(short(epochs=1), MODEL, folders, output, **{**options, **changes})


def test_sweep(folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip('matplotlib')
    opened, open_split = set(), runner.splits.open_split

    def seen(recipe: Any, data_dir: Path, split: str, **kwargs: Any) -> Any:
        opened.add(split)
        return open_split(recipe, data_dir, split, **kwargs)

    monkeypatch.setattr(runner.splits, 'open_split', seen)
    rows = search(folders, tmp_path)
    assert opened == {'train'}  # what a value is chosen by is never the validation split
    assert [row['value'] for row in rows] == ['1e-4', '1e-1'] and {row['n'] for row in rows} == {2}
    assert json.loads((tmp_path / 'sweep.json').read_text())['rows'] == rows
    assert report.draw(tmp_path) == tmp_path / 'sweep.png'
    assert (tmp_path / 'sweep.png').read_bytes()[:4] == b'\x89PNG'
    recipe = (tmp_path / 'e_lambda=1e-1' / 'seed4' / 'recipe.yaml').read_text()
    assert 'e_lambda: 0.1\n' in recipe and 'seed: 4\n' in recipe
    stamp = (tmp_path / 'e_lambda=1e-4' / 'seed3' / 'summary.csv').read_text()
    assert search(folders, tmp_path) == rows  # what is finished is not trained again
    assert (tmp_path / 'e_lambda=1e-4' / 'seed3' / 'summary.csv').read_text() == stamp
    with pytest.raises(ValueError, match=r'trained otherwise: holdout \(20, now 30\)'):
        search(folders, tmp_path, holdout=30)


def test_a_run_that_diverges_does_not_stop_a_sweep(folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip('matplotlib')

    def trained(recipe: Any, *args: Any, **kwargs: Any) -> Path:
        if recipe.model_kwargs['attn_kwargs']['e_lambda'] == 0.1 or recipe.seed == 4:
            raise NonFiniteLossError('The loss is nan.')
        return runner.train(recipe, *args, **kwargs)

    monkeypatch.setattr('timm_attn.training.sweep.train', trained)
    rows = search(folders, tmp_path)
    assert [(row['n'], row['diverged'], row['mean'] is None) for row in rows] == [(1, 1, False), (0, 2, True)]
    drawn: dict[str, Any] = {}
    draw = figures.sweep_figure
    monkeypatch.setattr(
        figures,
        'sweep_figure',
        lambda *a: drawn.update(zip(('title', 'option', 'values'), a, strict=False)) or draw(*a),
    )
    assert report.draw(tmp_path).read_bytes()[:4] == b'\x89PNG'
    assert drawn == dict(title=f'{MODEL}, 2 runs per value', option='e_lambda', values=['1e-4', '1e-1'])


def test_the_command_draws_a_sweep(folders: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip('matplotlib')
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(short(epochs=1))))
    command = ['sweep', '--config', tmp_path / 'r.yaml', '--model', MODEL, '--data-dir', folders / 'train']
    command += ['--attn-kwarg', 'e_lambda', '--values', '1e-4', '--repeats', '1', '--holdout', '0.5']
    assert main([*map(str, command), '--output', str(tmp_path / 'out')]) == 0  # 30 of 60 images, in a flat folder
    assert (tmp_path / 'out' / 'sweep.png').read_bytes()[:4] == b'\x89PNG'
    assert 'e_lambda 1e-4: top-1' in capsys.readouterr().out
    assert json.loads((tmp_path / 'out' / 'sweep.json').read_text())['holdout'] == 0.5


def test_sweep_refuses(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='different values and at least one repeat'):
        search(folders, tmp_path, values=['1', '1'])
    for holdout in (0, -1, 1.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=f'holdout must be a number of images, or a share .*, but is {holdout}'):
            search(folders, tmp_path, holdout=holdout)
    with pytest.raises(ValueError, match="'cifar_resnet20_simam' cannot be built with model_kwargs .*no_such"):
        search(folders, tmp_path, attn_kwarg='no_such')
    assert not list(tmp_path.iterdir())


CSV = {
    'ours': 'epoch,loss,train_top1,train_top5,val_loss,top1,top5\n1,2,30,60,2,35,70\n2,1,40,70,2,45,80\n',
    'timm': 'epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n0,2.0,2.1,33,66,0.1\n1,1.0,1.1,44,77,0.1\n',
}  # fmt: skip


def test_curves(tmp_path: Path, monkeypatch: Any) -> None:
    for name, text in CSV.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'summary.csv').write_text(text)
    drawn: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        draw = figures.curves_figure
        patch.setattr(figures, 'curves_figure', lambda runs, metrics: drawn.update(runs) or draw(runs, metrics))
        curves([tmp_path / 'ours', tmp_path / 'timm'], tmp_path / 'c.png', ['top1', 'loss'])
    assert drawn['ours']['val_top1'] == [35, 45] and drawn['ours']['train_top1'] == [30, 40]
    assert drawn['timm']['val_top1'] == [33, 44] and drawn['timm']['train_loss'] == [2, 1]
    assert drawn['timm']['epoch'] == drawn['ours']['epoch'] == [1, 2]
    with pytest.raises(FileNotFoundError, match='There is no .*nothing/summary.csv'):
        curves([tmp_path / 'nothing'], tmp_path / 'c.png')
    with pytest.raises(ValueError, match='A run is named twice: '):
        curves([tmp_path / 'timm', tmp_path / 'timm'], tmp_path / 'c.png')
    (tmp_path / 'timm' / 'summary.csv').write_text('epoch,lr\n1,0.1\n')
    with pytest.raises(ValueError, match='has no top1 and no top5, only epoch, lr'):
        curves([tmp_path / 'timm'], tmp_path / 'c.png')
    (tmp_path / 'timm' / 'summary.csv').write_text('epoch,top1\n1,x\n')
    with pytest.raises(ValueError, match='is damaged'):
        curves([tmp_path / 'timm'], tmp_path / 'c.png')
    with pytest.raises(ValueError, match="A figure is a .png or .svg file, but got 'c.pdf'"):
        curves([tmp_path / 'ours'], Path('c.pdf'))
    assert curves([tmp_path / 'ours'], tmp_path / 'c.png') == tmp_path / 'c.png'
    assert (tmp_path / 'c.png').read_bytes()[:4] == b'\x89PNG'


def test_any_name_of_a_class_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib')
    names = ['$a$b$', 'true', 'two, "quoted"', 'ü']
    counts = [[3, 0, 0, 1], [0, 4, 0, 0], [0, 0, 4, 0], [0, 1, 0, 3]]
    table = [{'': name, **dict(zip(names, row, strict=True))} for name, row in zip(names, counts, strict=True)]
    write_csv(tmp_path / 'confusion.csv', table)
    assert confusion.draw(tmp_path).read_bytes()[:4] == b'\x89PNG'


def test_record_result(folders: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    runner.train(short(), MODEL, folders, run)
    command = [sys.executable, ROOT / 'scripts' / 'record_result.py', MODEL, run, folders, tmp_path / 'results']
    subprocess.run(
        [*command, '--recipe', 'mine', '--dataset', 'Fashion-MNIST', '--command', 'c', '--hardware', 'h'],
        check=True, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    (result,) = load_results(tmp_path / 'results')
    assert (result.model, result.seed, result.epochs, result.images) == (MODEL, 3, 2, 60)
    assert result.top1 == checkpoint.load(run / 'last.pth.tar')['rows'][-1]['top1']


def test_a_metric_that_is_100_throughout_has_no_panel(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / 'summary.csv').write_text('epoch,train_loss,val_loss,top1,top5\n1,2,2,35,100\n2,1,1,45,100\n')
    drawn: list[Any] = []
    draw = figures.curves_figure
    monkeypatch.setattr(
        figures, 'curves_figure', lambda runs, metrics: drawn.append(list(metrics)) or draw(runs, metrics)
    )
    curves([tmp_path], tmp_path / 'c.png')
    curves([tmp_path], tmp_path / 'c.png', ['top5'])
    assert drawn == [['top1'], ['top5']]
