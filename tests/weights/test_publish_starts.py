"""What `weights publish` takes from the weights that a training started from: the model's name, and the licence."""

import argparse
import json
from pathlib import Path

import pytest
import timm
import torch

from tests.support.commands import fail_cli, run_cli

LICENCES = {
    'cifar_resnet20_cbam': 'apache-2.0',  # of its default
    'cifar_resnet20_cbam.from_fmnist': 'apache-2.0',
    'resnet18_gc.from_fb_ssl_yfcc100m_ft_in1k': 'cc-by-nc-4.0',
    'resnet18_gc.from_tv_in1k': 'bsd-3-clause',
}


def arguments(folder: Path, arch: str, pretrained: bool = True) -> list[object]:
    """Of the command for a checkpoint as timm's train.py writes it."""
    name = arch.partition('.')[0]
    args = argparse.Namespace(model=arch, pretrained=pretrained)
    torch.save(dict(arch=arch, state_dict=timm.create_model(name).state_dict(), args=args), folder / 'last.pth.tar')
    options = ['--repo', 'org/toy', '--tag', 'toy', '--output', folder / 'out', '--dry-run']
    return ['weights', 'publish', folder / 'last.pth.tar', *options]


@pytest.mark.parametrize('arch', LICENCES)
def test_a_start_passes_its_licence_on(arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(run_cli(capsys, *arguments(tmp_path, arch)))
    assert (record['name'], record['license']) == (arch.partition('.')[0], LICENCES[arch])
    assert f'license: {LICENCES[arch]}' in (tmp_path / 'out' / 'README.md').read_text()


def test_a_start_at_random_has_no_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(run_cli(capsys, *arguments(tmp_path, 'resnet18_gc.from_fb_ssl_yfcc100m_ft_in1k', False)))
    assert record['license'] == 'apache-2.0'


@pytest.mark.parametrize('arch', ['resnet18_simam.authors_in1k', 'cifar_resnet20_cbam.of_another_place'])
def test_an_unknown_licence_must_be_named(arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path, arch)
    assert f'No licence is known of {arch}, from which the training started' in fail_cli(capsys, *given)
    assert json.loads(run_cli(capsys, *given, '--license', 'mit'))['license'] == 'mit'
