"""What the figures show: sorted channels, shared axes, ranges, no empty panels, the answers and the truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from timm_attn import analysis, figures
from timm_attn.analysis import Cost, StageView
from timm_attn.figures.comparison import MOST
from timm_attn.figures.contact_sheet import Tile, contact_sheet
from timm_attn.reports.explain import class_in_path

BOOT = [('ankle boot', 0.9), ('bag', 0.1)]


def texts(figure: Figure) -> str:
    return '\n'.join(text.get_text() for text in figure.findobj(Text))


def panels(figure: Figure) -> list[Axes]:
    """The axes that show something, without colour bars."""
    return [ax for ax in figure.axes if ax.get_label() != '<colorbar>' and (ax.images or ax.lines or ax.patches)]


def explanation(**changes: Any) -> Figure:
    maps = dict(attention=None, gates=None, grad_cams={'before SE': np.eye(8), 'after SE': np.full((8, 8), 0.3)})
    shown: dict[str, Any] = dict(title='net', image=np.ones((8, 8, 3)), target='bag', layer='SE', classes=BOOT, **maps)
    return figures.explanation_sheet(figures.Explanation(**{**shown, **changes}))


def test_a_map_that_is_the_same_everywhere_is_left_out_and_named() -> None:
    figure = explanation()
    assert len(panels(figure)) == 3  # the image, the classes, one map
    assert 'the same everywhere, and left out: after SE' in figure.get_suptitle().replace('\n', ' ')
    assert 'left out' not in explanation(grad_cams={'before SE': np.eye(8)}).get_suptitle()


def test_every_map_has_a_bar_with_its_range() -> None:
    figure = explanation(attention=np.linspace(0.631, 0.794, 64).reshape(8, 8))
    bars = [ax for ax in figure.axes if ax.get_label() == '<colorbar>']
    assert [[t.get_text() for t in bar.get_xticklabels()] for bar in bars] == [['0.631', '0.794'], ['0', '1']]


def test_gates_are_sorted() -> None:
    (line,) = explanation(gates=np.array([0.2, 0.9, 0.5])).axes[1].lines
    assert line.get_ydata().tolist() == [0.9, 0.5, 0.2]


@pytest.mark.parametrize('names', [('cifar_resnet20_simam', 'cifar_resnet20'), ('resnet18_cbam', 'resnet18_se')])
def test_a_comparison_has_few_panels_the_truth_and_both_answers(names: tuple[str, str]) -> None:
    images = torch.randn(1, 3, 32, 32)
    views = {name: analysis.stage_views(timm.create_model(name), images) for name in names}
    nets = {name: figures.Answer('coat', 0.461, views[name]) for name in names}
    figure = figures.comparison_sheet('a', np.ones((32, 32, 3)), 'shirt', nets)
    assert 6 <= len(panels(figure)) <= MOST
    assert 'true class: shirt' in texts(figure) and all(f'{name} says: coat, 46 %' in texts(figure) for name in names)
    last = views[names[0]][-1].path  # the last stages are those that decide
    assert last in texts(figure)
    assert 'true class' not in texts(figures.comparison_sheet('a', np.ones((32, 32, 3)), None, nets))


def test_a_stage_without_attention_has_no_panel() -> None:
    nets = {'net': figures.Answer('coat', 0.5, [StageView('layer1', torch.randn(1, 2, 4, 4))])}
    assert len(panels(figures.comparison_sheet('a', np.ones((4, 4, 3)), None, nets))) == 2


LABELS = ['t-shirt', 'ankle boot', 'coat']


@pytest.mark.parametrize(
    'path, label',
    [
        ('docs/samples/ankle-boot_0.png', 'ankle boot'),
        ('x/4_coat/00012.png', 'coat'),
        ('x/0_T-Shirt/coat.png', 't-shirt'),  # the folder is asked first
        ('x/images/00012.png', None),
        ('coats.png', None),
    ],
)
def test_the_class_that_a_path_names(path: str, label: str | None) -> None:
    assert class_in_path(Path(path), LABELS) == label


def test_profiles_are_sorted_and_share_an_axis() -> None:
    means = analysis.ClassMeans.zeros(2, 3)
    means.add(torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.9, 0.1]]), torch.tensor([0, 1]))
    figure = figures.profile_figure({'net': {'a': means, 'b': means}}, {1: 'bag'})
    first, second = figure.axes[:2]
    assert first.get_shared_y_axes().joined(first, second)
    of_class, of_all = first.lines
    assert of_all.get_ydata() == pytest.approx([0.9, 0.3, 0.2])
    assert of_class.get_ydata() == pytest.approx([0.9, 0.1, 0.3])  # in the order of the mean


def test_a_cost_is_a_share_of_the_net() -> None:
    layer, net = Cost('a', 'SE', (1, 2, 3, 3), 20, 5, 8, 4, 0.5), Cost('', '', (1, 3, 8, 8), 200, 100, 80, 0, 1.0)
    figure = figures.cost_figure('net', [layer, layer], net)
    assert '20.0 %: 40.0 of 200.0' in texts(figure) and '100.0 %: 1.0 ms of 1.0 ms' in texts(figure)
    assert '0.0 %: 8.0 B of 0.0 B' in texts(figure)  # a net that keeps nothing


def test_selectivity_says_how_many_maps() -> None:
    nets = {'a': {'layer1': torch.rand(64)}, 'b': {'layer1': torch.rand(32)}}
    assert 'layer1, 64 and 32 maps' in texts(figures.selectivity_figure(nets))


def test_a_contact_sheet_marks_mistakes() -> None:
    from PIL import Image

    tile = dict(image=Image.new('L', (4, 4)), attention=np.eye(4), first_line='bag 90 %', second_line='true: coat')
    right, wrong = (contact_sheet([Tile(**tile, wrong=w)], 'a') for w in (False, True))  # type: ignore[arg-type]
    colours = {colour for _, colour in wrong.getcolors(1 << 20) or []}
    assert (213, 94, 0) in colours and (213, 94, 0) not in {c for _, c in right.getcolors(1 << 20) or []}


def test_a_run_of_one_epoch_is_seen() -> None:
    columns = {'epoch': [1], 'train_top1': [50], 'val_top1': [60]}
    (ax,) = figures.curves_figure({'run': columns}, ('top1',)).axes
    training, validation = ax.lines
    assert training.get_marker() == validation.get_marker() == 'o' and training.get_markerfacecolor() == 'none'
    assert ax.get_ylabel() == 'top-1 in %'
    longer = {key: [*values, *values] for key, values in columns.items()} | {'epoch': [1, 2]}
    (ax,) = figures.curves_figure({'run': longer}, ('top1',)).axes
    assert [line.get_marker() for line in ax.lines] == ['', '']
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
