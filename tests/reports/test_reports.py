"""The commands explain, profile, selectivity and cost: their files, their numbers, and one line per refusal."""

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from tests.support.commands import ROOT, run_cli
from timm_attn import analysis
from timm_attn.cli import _parser as parser
from timm_attn.cli import main
from timm_attn.data.fashion_mnist import CLASSES, FashionMNIST
from timm_attn.reports.explain import compare, explain
from timm_attn.reports.net import distinct, load_net
from timm_attn.reports.predict import predict

PLAIN, SIMAM = 'cifar_resnet20', 'cifar_resnet20_simam'
PER_CLASS = 3


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders of bundled images."""
    root = tmp_path_factory.mktemp('images')
    test = FashionMNIST('validation')
    for label, name in enumerate(CLASSES):
        of_class = root / f'{label}_{name.replace(" ", "-")}'
        of_class.mkdir()
        for i in (test.labels == label).nonzero()[0][:PER_CLASS]:
            test.image(int(i)).save(of_class / f'{i:05d}.png')
    return root


def batch_of(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    model = timm.create_model(name, pretrained=True)
    transform: Any = create_transform(**resolve_model_data_config(model))
    files = sorted(folder.glob('*/*.png'))
    labels = torch.tensor([int(f.parent.name[0]) for f in files])
    return torch.stack([transform(Image.open(f).convert('RGB')) for f in files]), labels


def rows_of(file: Path) -> list[dict[str, Any]]:
    with file.open(newline='') as f:
        return list(csv.DictReader(f))


def test_explain(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    pictures = sorted(folder.glob('*/*.png'))[:2]
    lines = run_cli(capsys, 'explain', SIMAM, *pictures, '--out', tmp_path / 'sheets').splitlines()
    expected = run_cli(capsys, 'predict', SIMAM, *pictures).splitlines()
    for line, prediction, picture in zip(lines, expected, pictures, strict=True):
        sheet = tmp_path / 'sheets' / f'{picture.stem}_{SIMAM}.png'
        assert line == f'{prediction}; {sheet}' and Image.open(sheet).width > 1000
    svg = run_cli(
        capsys, 'explain', PLAIN, pictures[0], '--layer', 'layer2', '--class', 3, '--format', 'svg', '--out', tmp_path
    )
    sheet = Path(svg.split('; ')[1].strip())
    assert sheet == tmp_path / f'{pictures[0].stem}_{PLAIN}.svg' and sheet.read_text().startswith('<?xml')


def test_explain_shows_what_the_analysis_found(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    shown = []
    monkeypatch.setattr('timm_attn.figures.explanation_sheet', lambda explanation: shown.append(explanation))
    monkeypatch.setattr('timm_attn.figures.save', lambda figure, path: path)
    net, picture = load_net(SIMAM), next(folder.glob('5_*/*.png'))
    for label in (None, 7):
        list(explain(net, [picture], tmp_path, label=label))
    predicted, chosen = shown
    images = net.prepare(Image.open(picture).convert('RGB'))
    layer = 'layer3.2.conv_attn'
    assert predicted.target == 'sandal' and chosen.target == 'sneaker' and predicted.layer == f'SimAM at {layer}'
    for place, name in (
        ('before', 'Grad-CAM before'),
        ('after', 'Grad-CAM after'),
        ('weights', 'Grad-CAM on the weights'),
    ):
        cam = analysis.grad_cam(net.model, images, layer, place=place, classes=7)
        torch.testing.assert_close(torch.tensor(chosen.grad_cams[name]), analysis.resized(cam, (28, 28))[0])
    factor = analysis.attention_maps(net.model, images)[layer]
    torch.testing.assert_close(
        torch.tensor(chosen.attention), analysis.resized(analysis.spatial_map(factor), (28, 28))[0]
    )
    pixels = torch.tensor(np.asarray(Image.open(picture).convert('L'))) / 255
    torch.testing.assert_close(torch.tensor(chosen.image)[..., 0], pixels)  # of which the net saw all
    gates = load_net('cifar_resnet20_se', trained=False)
    list(explain(gates, [picture], tmp_path))
    assert shown[-1].attention is None and shown[-1].gates.shape == (64,)


def test_against_draws_the_pictures_on_which_the_nets_disagree(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / 'other.safetensors'
    state = timm.create_model(PLAIN, pretrained=True).state_dict()
    save_file({**state, 'fc.bias': state['fc.bias'] + 100 * torch.eye(10)[1]}, other)  # everything is a trouser
    pictures = [next(folder.glob(f'{label}_*/*.png')) for label in (1, 8)]
    argv = ['explain', SIMAM, *pictures, '--against', PLAIN, '--against-checkpoint', other, '--out', tmp_path]
    agreed, disagreed = run_cli(capsys, *argv).splitlines()
    assert agreed.startswith(f'{pictures[0]}: trouser') and agreed.endswith('; no sheet, the nets agree')
    sheet = tmp_path / f'{pictures[1].stem}_{SIMAM}_{PLAIN}.png'
    assert disagreed.startswith(f'{pictures[1]}: bag ') and disagreed.endswith(f', class 1 100.0 %; {sheet}')
    assert sorted(tmp_path.iterdir()) == sorted([other, sheet]) and Image.open(sheet).height > 800


def test_nets_of_one_name_are_told_apart() -> None:
    net = load_net(PLAIN)
    assert [n.name for n in distinct([net, net, net])] == [PLAIN, f'{PLAIN}-2', f'{PLAIN}-3']


def test_sheets_never_replace_a_picture_or_each_other(folder: Path, tmp_path: Path) -> None:
    source = next(folder.glob('*/*.png'))
    pictures = [tmp_path / name for name in (f'a_{SIMAM}.png', 'a.png', 'b/a.png')]
    for picture in pictures:
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(source.read_bytes())
    sheets = [sheet for _, sheet, _ in explain(load_net(SIMAM), pictures, tmp_path)]
    assert [s.name for s in sheets] == [f'a_{SIMAM}_{SIMAM}.png', f'a_{SIMAM}-2.png', f'a_{SIMAM}-3.png']
    assert all(picture.read_bytes() == source.read_bytes() for picture in pictures)


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


def test_a_net_for_grey_images(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    recipe = dict(input_size=[1, 28, 28], mean=[0.286], std=[0.353], crop_pct=1.0, interpolation='bilinear')
    state = timm.create_model(SIMAM, in_chans=1).state_dict()
    file, picture = tmp_path / 'grey.pth', next(folder.glob('*/*.png'))
    torch.save({'state_dict': state, 'recipe': recipe}, file)
    net = load_net(SIMAM, file)
    pixels = torch.from_numpy(np.asarray(Image.open(picture).convert('L')) / 255)
    torch.testing.assert_close(net.prepare(Image.open(picture).convert('RGB'))[0, 0].double(), (pixels - 0.286) / 0.353)
    assert net.shown(net.prepare(Image.open(picture))).shape == (28, 28, 3)
    assert str(picture) in run_cli(capsys, 'predict', SIMAM, picture, '--checkpoint', file)
    run_cli(capsys, 'explain', SIMAM, picture, '--checkpoint', file, '--out', tmp_path)
    run_cli(capsys, 'selectivity', SIMAM, folder, '--checkpoint', file, '--out', tmp_path / 's.png')
    run_cli(capsys, 'profile', SIMAM, folder, '--checkpoint', file, '--out', tmp_path / 'p.png')


def test_the_commands_and_pictures_of_the_readme_are_there() -> None:
    root = ROOT
    readme = (root / 'README.md').read_text(encoding='utf-8')
    section = readme.split('## See what attention sees')[1].split('\n## ')[0]
    commands = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith('timm-attn ')]
    assert {argv[0] for argv in commands} == {'explain', 'profile', 'selectivity', 'cost'}
    for argv in commands:
        args = vars(parser().parse_args(argv))
        assert timm.is_model(args['arguments'][0]) and (args.get('against') is None or timm.is_model(args['against']))
    mentioned = re.findall(r'docs/[\w./-]+\.png', section)
    assert len(mentioned) == 6 and all((root / path).is_file() for path in mentioned)
    pictures = list((root / 'docs').rglob('*.png'))
    assert sum(p.stat().st_size for p in pictures) < 500_000
    code = section.split('```python\n')[1].split('```')[0]
    exec('import timm, torch\n' + code, {})


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
        ('explain cifar_resnet56_se good.png', 'No pretrained weights exist for cifar_resnet56_se'),
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


def test_one_warning_where_photographs_are_shrunk_to_a_small_input(
    caplog: pytest.LogCaptureFixture, folder: Path, tmp_path: Path
) -> None:
    own = next(folder.glob('*/*.png'))
    large = [tmp_path / 'a.png', tmp_path / 'b.png']
    for path in large:
        Image.open(own).resize((96, 80)).save(path)
    Image.open(own).resize((56, 300)).save(tmp_path / 'narrow.png')
    net, said = load_net(SIMAM), f'{SIMAM} is for small images: the net sees 28x28 pixels, your images have 96x80.'
    predict(net, [own, tmp_path / 'narrow.png'])
    assert not caplog.messages
    predict(net, [own, *large])
    assert caplog.messages == [said] and caplog.records[0].levelname == 'WARNING'
    list(explain(net, large, tmp_path / 'sheets'))
    assert caplog.messages == [said] * 2
    list(compare((net, load_net(PLAIN)), large, tmp_path / 'sheets'))
    assert caplog.messages[2:] == [said, said.replace(SIMAM, PLAIN)]
    predict(load_net('cifar_resnet20_se'), large[:1])
    predict(replace(net, data_config={**net.data_config, 'input_size': (3, 64, 64)}), large)
    assert len(caplog.messages) == 5
