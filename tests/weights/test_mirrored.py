"""Files of others at plain addresses with a known SHA-1: fetched once, verified, converted and kept."""

import hashlib
import importlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from tests.support.hub_server import LocalHub
from tests.support.mirrored import (
    NAME,
    PTH,
    TAG,
    at_address,
    model,
    only_kept_files,
    saved,
    state_dict,
    zipped,
)
from tests.support.records import registered
from timm_attn import weights, zoo
from timm_attn.weights import find_checkpoint
from timm_attn.weights.importing import import_checkpoint
from timm_attn.weights.inventory import is_present, path_of, remove
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import imported, store_dir, stored_path

pytestmark = pytest.mark.usefixtures('timm_fetches_nothing')


def test_fetched_once_and_verified_every_time(
    mirrored: Checkpoint, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {NAME, f'{NAME}.{TAG}'} <= set(timm.list_models(pretrained=True))
    first, asked = model(), len(file_server.requests)
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in state_dict().items())
    note, path = imported(mirrored), stored_path(mirrored)
    assert path is not None and path.suffix == '.safetensors' and note['sha256'] == _sha256(path.read_bytes())
    assert (note['source'], note['source_sha256']) == (mirrored.origin['url'], _sha256(PTH)) and only_kept_files()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    for again in (model(), timm.create_model(NAME, pretrained=True), getattr(zoo, NAME)(pretrained=True, tag=TAG)):
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    with pytest.raises(RuntimeError, match='the file is damaged, and HF_HUB_OFFLINE is set: unset it once, or downl'):
        model()
    assert len(file_server.requests) == asked
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    model()
    assert path_of(NAME) == path and _sha256(path.read_bytes()) == note['sha256']
    assert remove(NAME) == [path] and not list(store_dir().iterdir())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_variants_of_a_call(mirrored: Checkpoint, file_server: LocalHub, tmp_path: Path) -> None:
    saved_net = state_dict()
    wide = model(num_classes=3, cache_dir=tmp_path / 'elsewhere')
    assert wide.fc.out_features == 3 and torch.equal(wide.conv1.weight, saved_net['conv1.weight'])
    assert is_present(mirrored, tmp_path / 'elsewhere') and not is_present(mirrored)
    gray = model(features_only=True, in_chans=1)
    assert torch.equal(gray.layer1[0].conv1.weight, saved_net['layer1.0.conv1.weight'])
    overlaid = model(pretrained_cfg_overlay=dict(mean=(0.5,) * 3, crop_pct=0.5))
    assert (overlaid.pretrained_cfg['mean'], overlaid.pretrained_cfg['crop_pct']) == ((0.5,) * 3, 0.5)
    cfg = timm.get_pretrained_cfg(f'{NAME}.{TAG}')
    assert cfg is not None and cfg.url == mirrored.origin['url']
    by_cfg = timm.create_model(NAME, pretrained=True, pretrained_cfg=cfg)
    by_dict = timm.create_model(NAME, pretrained=True, pretrained_cfg=vars(cfg))
    assert torch.equal(by_cfg.conv1.weight, by_dict.conv1.weight)
    with pytest.raises(ValueError, match='trained with bias=True'):
        model(attn_kwargs=dict(bias=False))


@pytest.mark.parametrize('checkpoint', weights.checkpoints(), ids=lambda c: c.full_name)
def test_timm_is_handed_a_file_whatever_the_record(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr('timm_attn.weights.resolve.verified_path', lambda *args: tmp_path / 'x.safetensors')
    cfg = timm.get_pretrained_cfg(checkpoint.full_name)
    for kwargs in ({'pretrained_cfg': checkpoint.tag}, {'pretrained_cfg': cfg}, {'pretrained_cfg': vars(cfg)}):
        chosen = weights.chosen_checkpoint(checkpoint.name, kwargs)
        assert chosen == checkpoint
        overlay = weights.builder_arguments(chosen, kwargs)['pretrained_cfg_overlay']
        nowhere = dict.fromkeys(('state_dict', 'url', 'hf_hub_id', 'hf_hub_filename'))
        assert overlay == {**nowhere, 'source': '', 'file': str(tmp_path / 'x.safetensors')}


def test_offline_and_verified_only(
    mirrored: Checkpoint, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='are not here, and HF_HUB_OFFLINE is set: unset it once, or download http'):
        model()
    assert time.monotonic() - start < 1 and not file_server.requests
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setenv('TIMM_ATTN_VERIFIED_ONLY', '1')
    assert model() is not None and not caplog.records


def test_a_file_that_the_user_brings_has_the_digest_too(
    mirrored: Checkpoint, tmp_path: Path, file_server: LocalHub
) -> None:
    for file, content in (('x.pth', PTH), ('x.zip', zipped(PTH))):
        (tmp_path / file).write_bytes(content)
        assert import_checkpoint(NAME, tmp_path / file) == stored_path(mirrored)
        remove(NAME)
    (tmp_path / 'x.pth').write_bytes(saved({k: v + 1 for k, v in state_dict().items()}))
    with pytest.raises(ValueError, match=f'x.pth is not {NAME}.{TAG}: its SHA-1 is'):
        import_checkpoint(NAME, tmp_path / 'x.pth')
    assert not file_server.requests and not is_present(mirrored)


# A record for each layout of pytorchcv, and the net there that it is of.
LAYOUTS = {
    'cifar_resnet20_se.osmr_cifar100': ('seresnet_cifar', 'seresnet20_cifar100'),
    'cifar_densenet100_12.osmr_cifar10': ('densenet_cifar', 'densenet100_k12_bc_cifar10'),
    'squeezenet1_1.osmr_in1k': ('squeezenet', 'squeezenet_v1_1'),
    'resnet50_cbam.osmr_in1k': ('cbamresnet', 'cbam_resnet50'),
    'resnet50_bam_mul.authors_in1k': ('bamresnet', 'bam_resnet50'),
    'cifar_wrn28_10.osmr_svhn': ('wrn_cifar', 'wrn28_10_svhn'),
}


@pytest.mark.parametrize('full_name', LAYOUTS)
def test_every_layout_from_its_archive_to_a_net(
    full_name: str, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('pytorchcv', reason='the package pytorchcv of the extra `test` is not installed')
    module, net = LAYOUTS[full_name]
    theirs = getattr(importlib.import_module(f'pytorchcv.models.{module}'), net)()
    content = saved(theirs.state_dict())
    known = find_checkpoint(*full_name.split('.'))
    record = replace(known, origin=at_address(file_server, zipped(content), content))
    with registered(monkeypatch, record):
        ours = timm.create_model(full_name, pretrained=True).eval()
    size = ours.default_cfg['input_size']
    assert size == known.cfg['input_size'] and ours.num_classes == known.cfg['num_classes']
    images = torch.randn(1, *size)
    with torch.inference_mode():
        found, expected = ours(images), theirs.eval()(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
