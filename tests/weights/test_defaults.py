"""Which checkpoint a name means, and that every list says the same of it."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import timm
from huggingface_hub import constants

from tests.support.commands import ROOT
from timm_attn.catalog import description
from timm_attn.catalog import listing as catalog_listing
from timm_attn.cli import main
from timm_attn.weights import checkpoints, find_checkpoint, inventory, manifest
from timm_attn.weights.kinds import KINDS, UNVERIFIED

PAGE = (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8').splitlines()
DEFAULTS = {
    'resnet50_cbam': 'osmr_in1k',
    'resnet50_bam_mul': 'osmr_in1k',
    'resnet50_se': 'ra2_in1k',
    'resnext50_32x4d_se': 'racm_in1k',
    'resnet50_simam': 'authors_in1k',
    'cifar_resnet20': 'fmnist',
    'cifar_resnet20_se': 'fmnist',
    'cifar_resnet56_se': 'osmr_cifar10',
    'cifar_wrn28_10': 'osmr_cifar10',
}


@pytest.mark.parametrize('name', DEFAULTS)
def test_the_default_of_a_name(name: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None and cfg.tag == find_checkpoint(name).tag == DEFAULTS[name]


def test_the_default_does_not_depend_on_the_order_of_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(manifest.manifest_path().read_text())
    content['checkpoints'].reverse()
    (tmp_path / 'weights_manifest.json').write_text(json.dumps(content))
    monkeypatch.setattr(manifest, 'PACKAGE', tmp_path)
    found = manifest.checkpoints.__wrapped__()
    for name in {c.name for c in found}:
        assert [c.tag for c in found if c.name == name] == [c.tag for c in checkpoints() if c.name == name]


@pytest.mark.parametrize(
    'pattern, least',
    [
        ('*_cbam', ['resnet50_cbam']),
        ('*_bam_mul', ['resnet50_bam_mul']),
        ('*_se', ['resnet101_se', 'resnet18_se', 'resnet50_se', 'resnext50_32x4d_se']),
        ('*_simam', [f'{n}_simam' for n in ('mobilenetv2', 'resnet101', 'resnet18', 'resnet34', 'resnet50')]),
        ('*_eca', [f'{n}_eca' for n in ('mobilenetv2', 'resnet101', 'resnet152', 'resnet18', 'resnet34', 'resnet50')]),
    ],
)
def test_timm_lists_the_nets_for_imagenet(pattern: str, least: list[str]) -> None:
    assert set(least) <= set(timm.list_models(pattern, pretrained=True))


def test_a_name_without_weights_names_its_siblings() -> None:
    with pytest.raises(RuntimeError, match=r'exist for resnet50_bam: .* shows, such as resnet50_bam_mul, resnet50_se'):
        timm.create_model('resnet50_bam', pretrained=True)


@pytest.mark.parametrize('checkpoint', checkpoints(), ids=lambda c: c.full_name)
def test_every_list_says_what_pretrained_does(checkpoint: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path))
    name, tag, state = checkpoint.name, checkpoint.tag, checkpoint.row.state
    assert checkpoint.full_name in timm.list_models(f'{name}.*', pretrained=True)
    assert f'{tag} {state}' in catalog_listing(name)[0]
    assert f'{tag} ({state})' in (inspect.getdoc(timm.model_entrypoint(name)) or ''), 'the help of torch.hub'
    assert any(line.startswith(f'{checkpoint.full_name}  {state}  ') for line in inventory.listing())
    (said,) = (line for line in description(checkpoint.full_name) if line.startswith('checkpoint '))
    assert said.startswith(f'checkpoint {checkpoint.full_name}: {state}, ')
    (row,) = (line for line in PAGE if line.startswith(f'| `{checkpoint.full_name}` |'))
    assert f'| {state} (' in row and f'| {checkpoint.metrics[0]["top1"]:.2f} ' in row


def test_info_says_it_too() -> None:
    lines = '\n'.join(description('resnet50_cbam'))
    assert 'checkpoint resnet50_cbam.osmr_in1k: fetched on first use, licence MIT' in lines


def test_the_states_of_the_kinds() -> None:
    states = {kind: row.state for kind, row in KINDS.items()}
    assert states == {
        'bundled': 'loads now',
        'published': 'fetched on first use',
        'mirrored': 'fetched on first use',
        'upstream': UNVERIFIED,
        'timm': UNVERIFIED,
    }
    assert {kind for kind, row in KINDS.items() if not row.is_verified} == {'upstream', 'timm'}


def test_fetch_goes_on_after_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    bundled = [c.full_name for c in checkpoints() if c.kind == 'bundled']
    assert main(['weights', 'fetch', 'resnet50_cbam', 'no_such', 'cifar_resnet20']) == 1
    out, err = capsys.readouterr()
    cbam, no_such, plain = out.splitlines()
    assert cbam.startswith('resnet50_cbam: The weights of resnet50_cbam.osmr_in1k are not here, and HF_HUB_OFFLINE')
    assert no_such.startswith('no_such: No pretrained weights exist') and plain.startswith('cifar_resnet20.fmnist: /')
    assert err == 'timm-attn: 2 of 3 checkpoints could not be fetched.\n'
    assert main(['weights', 'fetch', '--all']) == 1
    out, err = capsys.readouterr()
    lines = dict(line.split(': ', 1) for line in out.splitlines())
    assert list(lines) == [c.full_name for c in checkpoints()] and f'{len(lines) - len(bundled)} of {len(lines)}' in err
    assert all(lines[c.full_name].startswith('The weights of ') != (c.kind == 'bundled') for c in checkpoints())
    assert main(['weights', 'fetch', *bundled]) == 0 and not capsys.readouterr().err
    for arguments in ([], ['--all', 'cifar_resnet20']):
        assert main(['weights', 'fetch', *arguments]) == 1
        assert 'Name the checkpoints to fetch, or say --all.' in capsys.readouterr().err
