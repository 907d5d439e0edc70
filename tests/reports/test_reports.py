"""The commands explain, profile, selectivity and cost: their files, their numbers, and one line per refusal."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from tests.support.commands import ROOT, run_cli
from timm_attn import analysis
from timm_attn.cli import _parser as parser
from timm_attn.cli import main
from timm_attn.reports.explain import compare
from timm_attn.reports.net import load_net

PLAIN, SIMAM = 'cifar_resnet20', 'cifar_resnet20_simam'


def batch_of(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    model = timm.create_model(name, pretrained=True)
    transform: Any = create_transform(**resolve_model_data_config(model))
    files = sorted(folder.glob('*/*.png'))
    labels = torch.tensor([int(f.parent.name[0]) for f in files])
    return torch.stack([transform(Image.open(f).convert('RGB')) for f in files]), labels


def rows_of(file: Path) -> list[dict[str, Any]]:
    with file.open(newline='') as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize('numbers', ['csv', 'json'])
def test_profile(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, numbers: str) -> None:
    out = tmp_path / 'profile.png'
    printed = run_cli(
        capsys, 'profile', SIMAM, folder, '--classes', '5_sandal', '8_bag', '--out', out, '--numbers', numbers
    )
    table = tmp_path / f'profile.{numbers}'
    assert printed.split() == [str(out), str(table)] and Image.open(out).width > 1000
    rows = rows_of(table) if numbers == 'csv' else json.loads(table.read_text())
    images, labels = batch_of(folder, SIMAM)
    maps = analysis.attention_maps(timm.create_model(SIMAM, pretrained=True), images)
    assert len(rows) == sum(factor.shape[1] for factor in maps.values())
    per_layer = {path: [r for r in rows if r['layer'] == path] for path in maps}
    for path, factor in maps.items():
        gates = analysis.channel_profile(factor)
        means = {'5_sandal': gates[labels == 5], '8_bag': gates[labels == 8], 'mean of all classes': gates}
        for column, values in means.items():  # every class has as many images
            found = torch.tensor([float(r[column]) for r in per_layer[path]])
            torch.testing.assert_close(found, values.mean(dim=0), atol=1e-6, rtol=1e-5)


def test_selectivity_of_two_nets(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / 'selectivity.svg'
    printed = run_cli(capsys, 'selectivity', PLAIN, folder, '--against', SIMAM, '--out', out).split()
    assert printed == [str(out), str(tmp_path / 'selectivity.csv')] and '<svg' in out.read_text()
    rows = rows_of(tmp_path / 'selectivity.csv')
    images, labels = batch_of(folder, PLAIN)
    for name in (PLAIN, SIMAM):
        model = timm.create_model(name, pretrained=True)
        for stage, index in analysis.class_selectivity(model, [(images, labels)], 10).items():
            found = [float(r['index']) for r in rows if r['model'] == name and r['stage'] == stage]
            torch.testing.assert_close(torch.tensor(found).double(), index, atol=1e-5, rtol=1e-4)


def test_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / 'cost.png'
    printed = run_cli(capsys, 'cost', 'cifar_resnet20_cbam', '--batch-size', 2, '--out', out)
    rows = rows_of(tmp_path / 'cost.csv')
    assert len(rows) == 10 and rows[-1]['path'] == '(whole net)' and int(rows[-1]['params']) == 275_747
    assert rows[0]['kind'] == 'CBAM' and rows[0]['shape'] == '(2, 16, 28, 28)'
    lines = printed.splitlines()
    assert len(lines) == 1 + len(rows) + 2 and lines[-3].split()[:3] == ['(whole', 'net)', '275,747']
    assert [line.split()[0] for line in lines[1:10]] == [r['path'] for r in rows[:9]]
    assert 'stages.0.blocks.0 ' in run_cli(
        capsys, 'cost', 'convnext_atto', '--layers', 'stages.0.blocks.0', '--out', out
    )


def test_a_checkpoint_of_ones_own(folder: Path, tmp_path: Path) -> None:
    model = timm.create_model('cifar_resnet20_eca', num_classes=3)
    torch.save({'state_dict': {f'module.{k}': v for k, v in model.state_dict().items()}}, tmp_path / 'own.pth.tar')
    net = load_net('cifar_resnet20_eca', tmp_path / 'own.pth.tar')
    assert net.labels == ['class 0', 'class 1', 'class 2'] and not net.model.training
    assert all(torch.equal(v, net.model.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match='Only nets with the same classes can disagree, but .*eca has 3 .*, .* 10'):
        list(compare((net, load_net(SIMAM)), [next(folder.glob('*/*.png'))], tmp_path))


def test_the_commands_and_pictures_of_the_docs_are_there() -> None:
    page = (ROOT / 'docs' / 'explain.md').read_text(encoding='utf-8')
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith('timm-attn ')]
    assert {argv[0] for argv in commands} == {'explain', 'profile', 'selectivity', 'cost'}
    for argv in commands:
        args = vars(parser().parse_args(argv))
        assert timm.is_model(args['arguments'][0]) and (args.get('against') is None or timm.is_model(args['against']))
    assert sum(p.stat().st_size for p in (ROOT / 'docs').rglob('*.png')) < 1_700_000


@pytest.fixture(scope='module')
def bad(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Datasets and files that cannot be used."""
    root = tmp_path_factory.mktemp('bad')
    good = next(folder.glob('*/*.png')).read_bytes()
    for name, content in {
        'flat/a.png': good,
        'one/class/a.png': good,
        'broken/x/a.png': good,
        'broken/y/b.png': good[:100],
        'cut.png': good[:100],
        'good.png': good,
        'junk.tar': b'no tar',
        'junk.pth': b'no checkpoint',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / 'empty').mkdir()
    return root


def failure(capsys: pytest.CaptureFixture[str], argv: str) -> str:
    """The last line on stderr; progress bars may be ahead of it."""
    assert main(argv.split()) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    *_, line = captured.err.replace('\r', '\n').strip().splitlines()
    assert line.startswith('timm-attn: ')
    return line


@pytest.mark.parametrize(
    'argv, message',
    [
        (
            f'explain {PLAIN} good.png',
            "cifar_resnet20 has no attention layers: name a layer to explain, such as 'layer3'.",
        ),
        (
            f'explain {SIMAM} good.png --layer layer9',
            "has no layer 'layer9'; its layers are conv1, bn1, act1, layer1, ",
        ),
        (f'explain {SIMAM} good.png --class 10', 'Class 10 is out of range: the classes are 0 to 9.'),
        (f'explain {SIMAM} good.png cut.png', 'cut.png cannot be read as an image'),
        (f'explain {SIMAM} gone.png', 'There is no image gone.png.'),
        (f'explain {SIMAM} good.png --checkpoint gone.pth', 'There is no checkpoint gone.pth.'),
        (f'explain {SIMAM} good.png --checkpoint junk.pth', 'junk.pth is no checkpoint of torch'),
        (f'explain {SIMAM} good.png --device gpu', "'gpu' is no device: choose cpu, or cuda where there is a GPU."),
        (f'explain {SIMAM} good.png --device meta', "There is no device 'meta' here: choose from cpu"),
        (
            'explain cifar_resnet20_siman good.png',
            "Unknown model 'cifar_resnet20_siman': did you mean cifar_resnet20_simam",
        ),
        ('explain cifar_resnet56_srm good.png', 'No pretrained weights exist for cifar_resnet56_srm'),
        (f'explain {SIMAM} good.png --against {PLAIN} --class 1', '--layer and --class do not go with it.'),
        (f'explain {SIMAM} good.png --against-checkpoint x', 'There is no checkpoint x.'),
        (f'explain {SIMAM}', 'one or more IMAGE must stand behind the model, but got none.'),
        (f'profile {SIMAM} one empty', 'one DATA must stand behind the model, but got one empty.'),
        (f'cost {SIMAM} one', 'Nothing is expected behind the name of the model, but got one.'),
        (f'explain {SIMAM} good.png --model {PLAIN}', f"Two models are named, '{PLAIN}' by --model and '{SIMAM}' as"),
        ('predict --checkpoint junk.pth good.png', 'junk.pth is no checkpoint of torch'),
        (f'profile {PLAIN} one', 'cifar_resnet20 has no attention layers.'),
        (f'profile {SIMAM} one --classes clazz', "There is no class 'clazz': choose from class."),
        (f'profile {SIMAM} one --classes class class class class class', 'At most 4 classes have a curve of their own'),
        (f'profile {SIMAM} empty', 'empty has no images in class folders: Found 0 images'),
        (f'selectivity {PLAIN} empty', 'empty has no images in class folders: Found 0 images'),
        (f'selectivity {PLAIN} gone', 'There is no folder or tar gone.'),
        (f'selectivity {PLAIN} junk.tar', 'junk.tar has no images in class folders'),
        (f'selectivity {PLAIN} flat', 'flat has images outside of class folders.'),
        (f'selectivity {PLAIN} one', "Selectivity compares classes, but one has only 'class'."),
        (f'selectivity {PLAIN} broken', 'b.png cannot be read as an image'),
        (f'selectivity {PLAIN} broken --out x.pdf', "A figure is a .png or .svg file, but got 'x.pdf'."),
        (f'cost {SIMAM} --layers layer9', "has no layer 'layer9'; its layers are conv1, bn1, act1, layer1, "),
        (f'cost {SIMAM} --batch-size 0', 'batch_size must be positive, but got 0.'),
    ],
)
def test_refusals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bad: Path, argv: str, message: str
) -> None:
    monkeypatch.chdir(bad)
    before = sorted(bad.rglob('*'))
    assert message in failure(capsys, argv)
    assert sorted(bad.rglob('*')) == before  # nothing is written


def test_without_matplotlib(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bad: Path) -> None:
    monkeypatch.chdir(bad)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for argv in (f'explain {SIMAM} good.png', f'profile {SIMAM} one', f'selectivity {PLAIN} one', f'cost {SIMAM}'):
        assert "Figures need matplotlib: pip install 'timm-attn[plots]'." in failure(capsys, argv)
