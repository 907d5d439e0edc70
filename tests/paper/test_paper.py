"""The papers' figures: counting conventions by hand, rounding, and every cell ticked or with its reason."""

import csv
import io
import json
from decimal import Decimal

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timm_attn import paper
from timm_attn.attention import ATTENTION, ECA, SE
from timm_attn.paper.arithmetic import ARITHMETIC
from timm_attn.paper.compare import Cell, printed
from timm_attn.paper.counted import BUILDERS, CHANGES, COUNTS, CountedNet, count
from timm_attn.paper.counting import macs, params, thop_2019, thop_2020, thop_params
from timm_attn.paper.printed import parse_figure, parse_formula

ROWS = [(table, row) for table in printed()['tables'] for row in table['rows']]
# facts of timm's nets, and of the released BAM in them (the stride in the 3x3 convolution)
MACS = {
    'resnet50': 4_089_184_256,
    'resnet18_bam_mul': 1_819_224_000,
    'resnet34_bam_mul': 3_668_912_064,
    'resnet50_bam_mul': 4_171_331_328,
    'resnet101_bam_mul': 7_883_552_512,
    'resnext50_32x4d_bam_mul': 4_312_626_944,
}


@pytest.fixture(scope='module')
def cells() -> list[Cell]:
    return paper.rows()


def tiny(bias: bool = True) -> nn.Module:
    """(3, 6, 6) -> conv (4, 6, 6) -> BN -> pool (4, 2, 2) -> 16 -> linear 5."""
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=bias, device='meta')
    norm = nn.BatchNorm2d(4, device='meta')
    return nn.Sequential(conv, norm, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5, bias=bias, device='meta'))


@pytest.mark.parametrize('bias', [True, False])
def test_the_conventions_by_hand(bias: bool) -> None:
    net, size = tiny(bias), (3, 6, 6)
    conv, linear, bn, pool = 4 * 36 * 27, 16 * 5, 4 * 36, 16 * (3 * 3 + 1)
    assert params(net) == 4 * 27 + 8 + 80 + 9 * bias
    assert macs(net, size) == conv + linear
    assert thop_2020(net, size) == conv + linear + 2 * bn + pool
    assert thop_2019(net, size) == conv + 4 * 36 * bias + 5 * (2 * 16 - 1 + bias) + 4 * bn + pool


def test_conv1d_and_groups_count_what_they_multiply() -> None:
    conv = nn.Sequential(nn.Flatten(1, 2), nn.Conv1d(2, 6, 3, padding=1, groups=2, device='meta'))
    assert macs(conv, (2, 1, 8)) == 6 * 8 * 3
    assert macs(nn.Conv2d(4, 4, 3, groups=4, device='meta'), (4, 5, 7)) == 4 * 3 * 5 * 9


@pytest.mark.parametrize('layer', [SE, ECA])
def test_a_layer_whose_authors_pool_by_a_module_counts_that_pool(layer: type[nn.Module]) -> None:
    net = layer(32, device='meta')  # type: ignore[call-arg]
    assert thop_2020(net, (32, 5, 7)) == macs(net, (32, 5, 7)) + 32 * (5 * 7 + 1)


def test_thop_params_misses_what_a_larger_module_holds_itself() -> None:
    srm = ATTENTION['srm'].layer(64, device='meta')
    assert (params(srm), thop_params(srm)) == (4 * 64, 2 * 64)
    assert thop_params(tiny()) == params(tiny())


def test_frozen_parameters_are_not_trainable() -> None:
    assert params(tiny().requires_grad_(False)) == 0


def test_counting_leaves_the_net_as_it_was() -> None:
    net = tiny().train()
    net[1].eval()
    modes = [m.training for m in net.modules()]
    with pytest.raises(RuntimeError):
        macs(net, (7, 6, 6))
    macs(net, (3, 6, 6))
    assert [m.training for m in net.modules()] == modes
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize('name', ['resnet18_cbam', 'mobilenetv2_eca', 'cifar_densenet100_12_bam', 'squeezenet1_1_bam'])
def test_macs_are_half_of_torch_flops(name: str) -> None:
    model = timm.create_model(name, device='meta').eval()
    size = model.default_cfg['input_size']  # type: ignore[index, operator]
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.empty(1, *size, device='meta'))
    assert 2 * macs(model, size) == flops.get_total_flops()


@pytest.mark.parametrize('name', MACS)
def test_macs_of_timm_based_nets(name: str) -> None:
    assert count(CountedNet(name, 1000, 224), 'macs') == MACS[name]


# thop's own integers on the authors' nets; their MobileNetV2 pools by a function at its head, timm's by a module
@pytest.mark.parametrize(
    ('name', 'quantity', 'operations'),
    [
        ('resnet18', 'thop_2020', 1_819_066_368),
        ('resnet18_se', 'thop_2020', 1_819_907_968),
        ('resnet34_cbam', 'thop_2020', 3_672_964_300),
        ('resnet50_eca', 'thop_2020', 4_117_136_896),
        ('resnext50_32x4d_srm', 'thop_2020', 4_259_413_504),
        ('mobilenetv2_simam', 'thop_2020', 314_130_496 + 1280 * 50),
        ('resnet18_se', 'thop_2019', 1_825_472_392),
        ('resnet34_cbam', 'thop_2019', 3_681_294_626),
        ('resnet34_eca', 'thop_2019', 3_680_653_568),
    ],
)
def test_operations_are_those_of_thop(name: str, quantity: str, operations: int) -> None:
    assert count(CountedNet(name, 1000, 224), quantity) == operations


def test_figures_round_halves_up_to_the_printed_precision() -> None:
    assert parse_figure('11.69M').rounded(11_685_000) == Decimal('11.69')
    assert parse_figure('11.69M').fits(11_694_999) and not parse_figure('11.690M').fits(11_694_999)
    assert parse_figure('+0.08G').fits(82_147_072) and parse_figure('36').fits(36)
    assert parse_figure('1M', {'M': 2**20}).fits(2**20)
    for wrong in ('11,69M', 'M', '1.2T', ''):
        with pytest.raises(ValueError, match='Not a figure'):
            parse_figure(wrong)


def test_formulas() -> None:
    symbols = {'C': 64, 'r': 16, 'k': 7}
    assert parse_formula('2C^2/r + 2k^2', symbols).number == 2 * 64 * 64 // 16 + 2 * 49
    assert [int(parse_formula(f, symbols).number) for f in ('6C', 'k', '0')] == [384, 7, 0]
    for wrong in ('2C +', '2C*r', ''):
        with pytest.raises(ValueError, match='Not a formula'):
            parse_formula(wrong, symbols)


def test_every_row_names_registered_models_or_a_layer_or_printed_figures() -> None:
    for table, row in ROWS:
        assert sum(key in row for key in ('layer', 'models', 'operands')) == 1, row
        assert row.get('layer', 'se') in ATTENTION
        names = {*row.get('models', []), row.get('base', 'plain')}
        attentions = row.get('builder') in ('ssd300', 'stairnet300', 'srresnet')
        assert all(name == 'plain' or (name in ATTENTION if attentions else timm.is_model(name)) for name in names), row
        assert set(row.get('why', {})) <= set(table['columns']) & set(row), row
        assert any(column in row for column in table['columns']), row
    places = [(table['id'], row['row']) for table, row in ROWS]
    assert len(set(places)) == len(places)


def test_structures_and_reasons_are_known_and_used() -> None:
    data = printed()
    assert {row['structure'] for _, row in ROWS if 'structure' in row} == set(data['structures'])
    assert {why for _, row in ROWS for why in row.get('why', {}).values()} == set(data['reasons'])
    assert {s['change'] for s in data['structures'].values() if 'change' in s} == set(CHANGES)
    quantities = {c['quantity'] for table in data['tables'] for c in table['columns'].values()}
    assert quantities <= {*COUNTS, *ARITHMETIC} and set(ARITHMETIC) <= quantities
    assert {row.get('builder', 'timm') for _, row in ROWS} == set(BUILDERS)


def test_every_cell_is_ticked_or_has_a_reason(cells: list[Cell]) -> None:
    for cell in cells:
        assert bool(cell.fits) == (cell.verdict in ('ticked', 'ticked with')), cell
        assert bool(cell.note) == (cell.verdict in ('ticked with', 'crossed')), cell
        assert bool(cell.printed) == (cell.verdict != 'not printed'), cell
    figures = [row[column] for table, row in ROWS for column in table['columns'] if column in row]
    assert [cell.printed for cell in cells] == figures


def test_a_reason_stands_only_where_the_figure_does_not_fit(cells: list[Cell]) -> None:
    given = {(table['id'], row['row'], column) for table, row in ROWS for column in row.get('why', {})}
    assert given == {(c.table, c.row, c.column) for c in cells if c.verdict == 'crossed'}


def test_the_reasons_that_are_arithmetic_hold(cells: list[Cell]) -> None:
    at = {(c.table, c.row, c.column): c for c in cells}
    reasons = printed()['reasons']
    for (table, row, column), cell in at.items():
        if cell.note == reasons['twice']:
            n = Decimal(next(iter(cell.ours.values()))) / 10**9
            assert f'{round(round(n, 3) + Decimal("1e-9"), 2)}G' == cell.printed
        if cell.note == reasons['difference']:
            total = {'extra': 'params', 'extra_flops': 'flops'}[column]
            ends = [parse_figure(at[table, name, total].printed).number for name in (row, row.removesuffix(' + BAM'))]
            assert ends[0] - ends[1] == parse_figure(cell.printed).number


def test_the_gflops_of_bam_need_the_stride_in_the_first_convolution(cells: list[Cell]) -> None:
    at = {(c.row, c.column): c for c in cells if c.table == 'BAM 4'}
    for net in ('ResNet50', 'ResNet101', 'ResNeXt50 (32x4d)'):
        assert at[net, 'flops'].verdict == at[f'{net} + BAM', 'flops'].verdict == 'ticked with'
        assert set(at[f'{net} + BAM', 'extra_flops'].ours.values()) == {82_147_072}
        assert at[f'{net} + BAM', 'extra_flops'].verdict == 'ticked'


def test_formats(cells: list[Cell]) -> None:
    text = paper.tables('md')
    assert text.count('\n## ') == len(paper.table_ids()) - 1
    silent = [c for c in cells if not c.printed]
    assert text.endswith(f'crossed; {len(silent)} that the papers do not print')
    assert f'{len(cells) - len(silent)} figures' in text
    assert [Cell(**{**c, 'fits': tuple(c['fits'])}) for c in json.loads(paper.tables('json'))] == cells
    lines = list(csv.DictReader(io.StringIO(paper.tables('csv'))))
    assert [line['printed'] for line in lines] == [c.printed for c in cells]


def test_one_table(cells: list[Cell]) -> None:
    assert paper.rows('ECA A') == [c for c in cells if c.table == 'ECA A']
    assert paper.tables('md', 'ECA A').startswith('## ECA A: ')
    with pytest.raises(ValueError, match="Unknown table 'ECA B': choose from SimAM 1, "):
        paper.tables('md', 'ECA B')
    with pytest.raises(ValueError, match="Unknown format 'html': choose from md, json, csv"):
        paper.tables('html')


@pytest.mark.parametrize(
    ('builder', 'model', 'classes', 'quantity', 'params'),
    [
        ('faster_rcnn', 'resnet50_simam', 81, 'params', 41_757_156),
        ('mask_rcnn', 'resnet101', 81, 'params', 63_392_821),
        ('ssd300', 'plain', 21, 'params', 26_515_936),
        ('stairnet300', 'plain', 21, 'params', 32_006_880),
        ('stairnet300', 'bam', 21, 'params', 32_113_362),
        ('stairnet300', 'bam_mul', 21, 'params', 32_111_046),
        ('srresnet', 'plain', 0, 'params', 1_549_462),
        ('srresnet', 'bam', 0, 'params', 1_554_546),
        ('srresnet', 'bam_mul', 0, 'params', 1_554_154),
        ('upernet_lite', 'resnet50', 150, 'decoder_params', 18_265_750),
        ('upernet', 'resnet50', 150, 'decoder_params', 40_590_486),
    ],
)
def test_parameters_of_the_nets_of_the_downstream_tables(
    builder: str, model: str, classes: int, quantity: str, params: int
) -> None:
    assert count(CountedNet(model, classes, 0, builder=builder), quantity) == params


def test_figures_that_the_papers_compute_from_others() -> None:
    assert ARITHMETIC['gain']([Decimal('0.59'), Decimal('0.76')]).quantize(Decimal('0.001')) == Decimal('28.814')
    assert ARITHMETIC['mean']([Decimal('1'), Decimal('2.5')]) == Decimal('1.75')
    assert parse_figure('+28.8%').fits(Decimal('28.814')) and not parse_figure('+28.8%').fits(Decimal('28.85'))


def test_what_of_the_coco_tables_follows_from_their_own_figures(cells: list[Cell]) -> None:
    table = {c.row: c for c in cells if c.table in ('BAM 5', 'BAM 6')}
    assert [row for row, c in table.items() if c.verdict == 'crossed'] == ['mAP @0.75', 'ResNet101 + BAM']
    assert [table[row].ours['printed'] for row in ('ResNet101', 'ResNet101 + BAM')] == [29.089, 30.456]
