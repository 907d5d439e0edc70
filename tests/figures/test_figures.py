"""Figures: nothing overlaps, nothing is cut off, and a file is whole or not there."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from benchmarks.engine_figure import engine_figure
from benchmarks.figure import SpeedBar, SpeedPanel, benchmark_figure
from benchmarks.measure import Spread
from timm_attn import analysis, figures
from timm_attn.data.fashion_mnist import CLASSES
from timm_attn.figures import canvas

LONG = 'cifar_densenet100_12_bam'  # the longest paths: features.transition1.attn_out


def views_of(name: str, **kwargs: Any) -> list[analysis.StageView]:
    return analysis.stage_views(timm.create_model(name, **kwargs), torch.randn(1, 3, 64, 64))


def means(channels: int) -> analysis.ClassMeans:
    found = analysis.ClassMeans.zeros(10, channels)
    found.add(torch.rand(40, channels), torch.arange(40) % 10)
    return found


def profiles(layers: int, channels: int) -> dict[str, analysis.ClassMeans]:
    return {f'layer{i}.0.conv_attn': means(channels) for i in range(layers)}


def explanation(**changes: Any) -> Figure:
    shown: dict[str, Any] = dict(
        title='cifar_resnext29_16x64d_simam: a_picture_with_a_very_long_name_without_any_blank.png',
        image=np.random.rand(32, 32, 3),
        target='ankle boot',
        layer='SimAM at layer3.2.conv_attn',
        grad_cams={name: np.random.rand(32, 32) for name in ('before SimAM', 'after SimAM', 'on the weights')},
        attention=np.random.rand(32, 32) * 1e-3,
        gates=None,
        classes=[('ankle boot', 0.9), ('an airship, also dirigible', 0.05), ('t-shirt', 0.04), ('b', 0.01), ('c', 0)],
    )
    return figures.explanation_sheet(figures.Explanation(**{**shown, **changes}))


def comparison(*names: str) -> Figure:
    nets = {name: figures.Answer('ankle boot', 0.99, views_of(name)) for name in names}
    return figures.comparison_sheet('picture.png', np.random.rand(64, 64, 3), 'bag', nets)


def costs(name: str) -> Figure:
    *layers, net = analysis.cost_report(timm.create_model(name), torch.randn(1, 3, 32, 32), repeats=1)
    return figures.cost_figure(f'{name}: what layers cost', layers, net)


def speeds(panels: int) -> Figure:
    """As many panels as a run on a GPU may have, and names as long as its longest."""
    bars = [
        SpeedBar('mobilenetv2_simam', 0.7, 0.6, 0.9, paper=0.66),
        SpeedBar('resnext50_32x4d_cbam', 12.5, 9, 13.1, target=4.0),
        SpeedBar('se', 0.97, 0.96, 0.98),
    ]
    title = 'SimAM forward + backward, 128x256x56x56, channels_last, float16, GPU, bandwidth'
    shown = [SpeedPanel(title, 'resnext50_32x4d', bars[: 1 + i % 3] * (1 + i % 4)) for i in range(panels)]
    return benchmark_figure('Speed of variants that took turns: ' + 'A CPU with a long name ' * 4, shown)


def engine_speeds() -> Figure:
    nets, engines = ('plain', 'simam', 'se', 'eca', 'cbam', 'bam'), ('eager', 'compile, freezing', 'onnxruntime')
    speeds = {f'{net}/{engine}': Spread(1.5, 1.4, 1.7) for net in nets for engine in engines}
    return engine_figure('A CPU with a long name ' * 4, [('resnet50 in the engines, batch 1, CPU', speeds)] * 3)


def curves(columns: dict[str, tuple[str, ...]]) -> Figure:
    runs = {run: {'epoch': range(9), **dict.fromkeys(names, range(9))} for run, names in columns.items()}
    return figures.curves_figure(runs, ('top1', 'top5'))


FIGURES: dict[str, Callable[[], Figure]] = {
    'explanation': explanation,
    'explanation of gates': lambda: explanation(attention=None, gates=np.random.rand(64)),
    'explanation of any layer': lambda: explanation(
        attention=None, grad_cams={'before Sequential': np.zeros((32, 32)), 'after Sequential': np.random.rand(32, 32)}
    ),
    'explanation without a map': lambda: explanation(attention=None, grad_cams={'before': np.zeros((32, 32))}),
    'comparison': lambda: comparison('cifar_resnet20_simam', 'cifar_resnet20_se'),
    'comparison of other depths': lambda: comparison(LONG, 'cifar_resnet20'),
    'profiles': lambda: figures.profile_figure({'cifar_resnet20_se': profiles(9, 64)}, {0: 't-shirt', 3: 'dress'}),
    'profiles of two nets': lambda: figures.profile_figure(
        {'resnet50_se': profiles(4, 2048), 'resnet50_eca': profiles(2, 8)}, dict(enumerate('abcd'))
    ),
    'selectivity': lambda: figures.selectivity_figure(
        {'cifar_resnet20': {f'layer{i}': torch.rand(64) for i in range(4)}, LONG: {'norm': torch.rand(9)}}
    ),
    'cost': lambda: costs('cifar_resnet20_cbam'),
    'cost of a layer without parameters': lambda: costs('mobilenetv2_simam'),
    'confusion': lambda: figures.confusion_figure(np.arange(100).reshape(10, 10), CLASSES),
    'confusion of many classes': lambda: figures.confusion_figure(np.eye(100, dtype=int), [LONG] * 100),
    'curves': lambda: curves({'run': ('train_top1', 'val_top1', 'val_top5'), LONG: ('val_top1', 'val_top5')}),
    'curves of many runs': lambda: curves({f'{LONG}{i}': ('train_top1', 'val_top1', 'val_top5') for i in range(9)}),
    'sweep': lambda: figures.sweep_figure(
        f'{LONG}, 3 runs per value',
        'e_lambda',
        ['1e-6', '1e-4', '1.0'],
        [[90.0, 92.0], [], [88.0]],
        [91.0, None, 88.0],
        [1.0, None, None],
    ),
    'benchmark of one case': lambda: speeds(1),
    'benchmark': lambda: speeds(20),
    'benchmark of engines': engine_speeds,
}


def texts(figure: Figure) -> Iterator[tuple[str, Any]]:
    """Every text that is seen, with its box in pixels."""
    figure.set_dpi(canvas.DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    unseen = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [t for t in ticks if not (ax.axison and low - 1e-9 <= t.get_loc() <= high + 1e-9)]
            unseen |= {text for tick in outside for text in (tick.label1, tick.label2)}
            unseen |= set() if ax.axison else {axis.label}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            yield text.get_text(), text.get_window_extent(renderer)


@pytest.mark.parametrize('name', FIGURES)
def test_no_text_overlaps_another_or_leaves_the_figure(name: str) -> None:
    figure = FIGURES[name]()
    boxes = list(texts(figure))
    assert boxes
    page = figure.bbox
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1, text
        assert box.height >= 8 / 72 * canvas.DPI * 0.6, f'{text!r} is too small to read'
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 1 or height < 1, f'{one!r} overlaps {other!r}'


# What deuteranopes and protanopes see of a linear RGB colour (Vienot, Brettel and Mollon 1999).
DICHROMATS = {
    'protan': [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    'deutan': [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize('kind', DICHROMATS)
def test_colour_blind_readers_tell_the_curves_apart(kind: str) -> None:
    def seen(colour: str) -> Any:
        return np.array(DICHROMATS[kind]) @ np.array(to_rgb(colour)) ** 2.2

    for one, other in itertools.combinations((*canvas.COLOURS, 'black'), 2):
        assert np.linalg.norm(seen(one) - seen(other)) > 0.13, (one, other)
    confused = {'protan': ('tab:green', 'tab:orange'), 'deutan': ('tab:red', 'tab:green')}[kind]
    assert np.linalg.norm(seen(confused[0]) - seen(confused[1])) < 0.1  # the measure knows a bad pair


@pytest.mark.parametrize('suffix', canvas.FORMATS)
def test_the_same_figure_gives_the_same_file(suffix: str, tmp_path: Path) -> None:
    for i in range(2):
        torch.manual_seed(0)
        figures.save(FIGURES['selectivity'](), tmp_path / 'new folder' / f'{i}.{suffix}')
    first, second = sorted((tmp_path / 'new folder').iterdir())
    assert first.read_bytes() == second.read_bytes()
    if suffix == 'png':
        assert Image.open(first).width > 800


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / 'figure.png'
    old.write_bytes(b'before')

    def no_space(self: Figure, file: Any, **options: Any) -> None:
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    figure = FIGURES['explanation']()
    monkeypatch.setattr(Figure, 'savefig', no_space)
    with pytest.raises(OSError, match='No space left'):
        figures.save(figure, old)
    assert old.read_bytes() == b'before' and list(tmp_path.iterdir()) == [old]
    with pytest.raises(ValueError, match=r"A figure is a \.png or \.svg file, but got .*figure\.pdf'"):
        figures.save(figure, tmp_path / 'figure.pdf')


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(RuntimeError, match=r"^Figures need matplotlib: pip install 'timm-attn\[plots\]'\.$"):
        FIGURES['explanation']()
