"""Every checkpoint of the authors, from a file in their format that a user downloaded to `pretrained=True`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from tests.support.authors import (
    FILES,
    NAME,
    OTHERS,
    UPSTREAM,
    WITH_LOGITS,
    authors_file,
    authors_state_dict,
    saved,
)
from tests.support.vectors import ROWS
from timm_attn.weights.importing import import_checkpoint
from timm_attn.weights.inventory import listing, remove, verify_all
from timm_attn.weights.store import imported, store_dir, stored_path

pytestmark = pytest.mark.usefixtures('store')


def test_every_published_name_is_in_the_tables() -> None:
    assert set(UPSTREAM) == set(WITH_LOGITS) | set(OTHERS)


@pytest.mark.parametrize('name', UPSTREAM)
def test_import_then_pretrained(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=f'timm-attn weights import {name}.authors_in1k'):
        timm.create_model(name, pretrained=True)
    path = import_checkpoint(name, authors_file(tmp_path, name))
    assert path == stored_path(UPSTREAM[name]) and path.stat().st_mode & 0o777 == 0o644
    model = timm.create_model(name, pretrained=True).eval()
    assert sum(p.numel() for p in model.parameters()) == UPSTREAM[name].num_params
    if name in WITH_LOGITS:
        row = ROWS[WITH_LOGITS[name]]
        images = torch.from_numpy(np.random.RandomState(0).standard_normal(row['input_size']))
        with torch.inference_mode():
            logits = model.double()(images)
        error = (logits[:, :16] - torch.tensor(row['logits'], dtype=torch.float64)).abs().max()
        assert error < 1e-4 * row['abs_mean']  # the file has float32
    else:
        expected = authors_state_dict(name)
        assert torch.equal(model.conv1.weight, expected['conv1.weight'])


def test_an_import_is_noted_listed_verified_and_removed(tmp_path: Path, store: Path) -> None:
    checkpoint = UPSTREAM[NAME]
    assert any(line.startswith(checkpoint.full_name) and line.endswith('not here') for line in listing())
    path = import_checkpoint(checkpoint.full_name, authors_file(tmp_path, NAME))
    assert imported(checkpoint)['source'] == 'model_best.pth.tar' and len(imported(checkpoint)['source_sha256']) == 64
    assert f'{checkpoint.full_name}: ok' in verify_all() and any(line.endswith(str(path)) for line in listing())
    assert import_checkpoint(NAME, authors_file(tmp_path, NAME)) == path  # the same bytes again
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    with pytest.raises(RuntimeError, match=rf'1 of {FILES} files: the weights of {checkpoint.full_name} .* damaged'):
        verify_all()
    with pytest.raises(RuntimeError, match=rf'damaged, and HF_HUB_OFFLINE is set: .*`timm-attn weights import {NAME}'):
        timm.create_model(NAME, pretrained=True)
    assert remove(NAME) == [path] and not list(store.iterdir())
    with pytest.raises(ValueError, match='is not here: nothing to remove'):
        remove(NAME)


def test_the_folder_of_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('TIMM_ATTN_HOME', '~/mine')
    assert store_dir() == tmp_path / 'mine' and store_dir('x') == Path('x')
    monkeypatch.delenv('TIMM_ATTN_HOME')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    assert store_dir() == tmp_path / 'cache' / 'timm_attn'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert store_dir() == tmp_path / '.cache' / 'timm_attn'

    def homeless() -> Path:
        raise RuntimeError('Could not determine home directory.')  # as for a user id without an entry

    monkeypatch.setattr(Path, 'home', homeless)
    with pytest.raises(RuntimeError, match='There is no home folder for the weights: set TIMM_ATTN_HOME'):
        timm.create_model(NAME, pretrained=True)
    monkeypatch.setenv('TIMM_ATTN_HOME', '~no_such_user/weights')
    with pytest.raises(RuntimeError, match='There is no folder ~no_such_user/weights for the weights: set TIMM_ATTN_H'):
        timm.create_model(NAME, pretrained=True)
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'file'))
    with pytest.raises(
        OSError, match=r'file/\S+ cannot be read \(Not a directory\): choose another folder by TIMM_ATTN'
    ):
        timm.create_model(NAME, pretrained=True)


def test_variants_of_a_call(tmp_path: Path) -> None:
    import_checkpoint(NAME, authors_file(tmp_path, NAME))
    assert timm.create_model(f'{NAME}.authors_in1k', pretrained=True, num_classes=7).fc.out_features == 7
    gray = timm.create_model(NAME, pretrained=True, in_chans=1, features_only=True)
    assert gray(torch.zeros(1, 1, 64, 64))[-1].shape[1] == 512
    elsewhere = tmp_path / 'elsewhere'
    with pytest.raises(RuntimeError, match='weights import'):
        timm.create_model(NAME, pretrained=True, cache_dir=elsewhere)
    import_checkpoint(NAME, authors_file(tmp_path, NAME), elsewhere)
    timm.create_model(NAME, pretrained=True, cache_dir=elsewhere)


@pytest.mark.parametrize(
    'name, options, message',
    [
        ('resnet18_simam', dict(e_lambda=1e-4), r'trained with e_lambda=0.1 of SimAM, but 0.0001 was asked for'),
        (NAME, dict(kernel_size=5), r'trained with kernel_size=None of ECA, but 5 was asked for'),
    ],
)
def test_options_that_contradict_a_checkpoint(name: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    import_checkpoint(name, authors_file(tmp_path, name))
    with pytest.raises(ValueError, match=message):
        timm.create_model(name, pretrained=True, attn_kwargs=options)
    assert timm.create_model('resnet18_simam', attn_kwargs=dict(e_lambda=0.1)) is not None


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: {k: v for k, v in s.items() if k != 'layer1.0.conv1.weight'}, 'it lacks layer1.0.conv1.weight'),
        (lambda s: {**s, 'extra.weight': torch.zeros(1)}, 'keys that the model lacks, such as extra.weight'),
        (lambda s: {**s, 'layer1.0.conv1.weight': torch.zeros(64, 64, 1, 1)}, r'has shape \(64, 64, 1, 1\) instead of'),
        (lambda s: {'unrelated': torch.zeros(1)}, 'keys that the model lacks, such as unrelated'),
        (lambda s: {}, 'it lacks conv1.weight'),
        (lambda s: {**s, 'layer1.0.eca.conv.weight': torch.zeros(1, 1, 4)}, 'does not fit resnet18_eca.authors_in1k'),
        (lambda s: {**s, 'layer1.0.eca.conv.weight': torch.zeros(1, 1, 9)}, '11,689,562 parameters, but .* 11,689,556'),
        (
            lambda s: {**s, 'fc.weight': torch.zeros(10, 512), 'fc.bias': torch.zeros(10)},
            'size mismatch for fc.weight',
        ),
    ],
    ids=['missing', 'extra', 'shape', 'unrelated', 'empty', 'even kernel', 'other kernel', 'other classes'],
)
def test_files_that_are_not_the_checkpoint(change: Any, message: str, tmp_path: Path, store: Path) -> None:
    path = saved(tmp_path, change(authors_state_dict(NAME)))
    with pytest.raises(ValueError, match=message):
        import_checkpoint(NAME, path)
    assert not store.exists()


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    path = authors_file(tmp_path, NAME)

    def full(*args: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', full)
    with pytest.raises(OSError, match=rf'{NAME}\S* cannot be written to {store} \(No space.*TIMM_ATTN_HOME'):
        import_checkpoint(NAME, path)
    assert not list(store.iterdir())


def test_names_that_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r'cifar_resnet20_bam.fmnist is bundled, nothing to import: choose from .*_cbam'
    ):
        import_checkpoint('cifar_resnet20_bam', tmp_path / 'x')
    with pytest.raises(ValueError, match=r'resnet50_se.ra2_in1k is timm, .*: choose from resnet50_se.osmr_in1k\.$'):
        import_checkpoint('resnet50_se', tmp_path / 'x')
    with pytest.raises(RuntimeError, match='No pretrained weights exist for resnet50_srm'):
        import_checkpoint('resnet50_srm', tmp_path / 'x')
    with pytest.raises(OSError, match='There is no file .*nowhere'):
        import_checkpoint(NAME, tmp_path / 'nowhere')
