"""torch.hub, from a local folder and in the GitHub form with the checkout already in its cache."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.commands import ROOT
from timm_attn import BACKBONES, zoo


def test_local_folder() -> None:
    model = torch.hub.load(str(ROOT), 'resnet50_simam', source='local')
    assert sum(p.numel() for p in model.parameters()) == 25557032
    for options in ({}, {'tag': 'fmnist'}):
        pretrained = torch.hub.load(str(ROOT), 'cifar_resnet20_simam', source='local', pretrained=True, **options)
        assert pretrained.default_cfg['tag'] == 'fmnist'
    with pytest.raises(RuntimeError, match=r'Invalid pretrained tag \(in1k\) for cifar_resnet20_simam: its tags'):
        torch.hub.load(str(ROOT), 'cifar_resnet20_simam', source='local', pretrained=True, tag='in1k')


def test_github_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    checkout = tmp_path / 'hub' / 'owner_timm-attn_main'
    checkout.mkdir(parents=True)
    shutil.copytree(ROOT / 'timm_attn', checkout / 'timm_attn')
    for file in ('hubconf.py', 'weights_manifest.json'):
        shutil.copy(ROOT / file, checkout)
    repo = 'owner/timm-attn:main'
    assert torch.hub.list(repo, trust_repo=True) == sorted(zoo.names())
    assert 'ResNet-50 with SimAM' in torch.hub.help(repo, 'resnet50_simam', trust_repo=True)
    assert torch.hub.load(repo, 'resnet18_eca', trust_repo=True, num_classes=4)(torch.randn(1, 3, 64, 64)).shape == (
        1,
        4,
    )


def test_every_entry_says_what_it_is() -> None:
    titles = tuple(row.title for row in BACKBONES.values())
    for name in zoo.names():
        assert getattr(zoo, name).__doc__.startswith(titles), name
