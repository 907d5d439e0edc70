"""explain: sheets that show what the analysis found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.support.commands import run_cli
from timm_attn import analysis
from timm_attn.reports.explain import compare, explain
from timm_attn.reports.net import distinct, load_net
from timm_attn.reports.predict import predict

PLAIN, SIMAM = 'cifar_resnet20', 'cifar_resnet20_simam'


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
        ('before', 'before SimAM'),
        ('after', 'after SimAM'),
        ('weights', 'on the weights of SimAM'),
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
