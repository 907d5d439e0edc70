"""Every checkpoint of the authors, from a file in their format that a user downloaded to `pretrained=True`."""

import argparse
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from tests.support.vectors import ROWS, fill, reference_state_dict
from timm_attn.weights import checkpoints, importing, inventory
from timm_attn.weights.importing import import_checkpoint
from timm_attn.weights.inventory import listing, path_of, remove, verify_all
from timm_attn.weights.store import imported, record_path, store_dir, stored_path

UPSTREAM = {c.name: c for c in checkpoints() if c.kind == 'upstream'}

# Names whose layout has logits of the authors' code: the row of the vectors.
WITH_LOGITS = {
    **{name: name for name in ('resnet18_simam', 'resnet34_simam', 'resnet50_simam', 'mobilenetv2_simam')},
    'resnet18_eca': 'resnet18_eca[k3577]',
    'resnet50_eca': 'resnet50_eca[k3557]',
    'mobilenetv2_eca': 'mobilenetv2_eca[k13]',
}

# The others: kernel sizes by stage, and how the authors call our keys.
OTHERS: dict[str, tuple[tuple[int, ...], tuple[str, str]]] = {
    'resnet101_simam': ((), (r'\.conv2\.', '.conv2.0.')),
    'resnext50_32x4d_simam': ((), (r'\.conv2\.', '.conv2.0.')),
    'resnet34_eca': ((3, 3, 5, 7), (r'\.se\.conv\.', '.eca.conv.')),
    'resnet101_eca': ((3, 3, 5, 7), (r'\.se\.conv\.', '.eca.conv.')),
    'resnet152_eca': ((3, 3, 5, 7), (r'\.se\.conv\.', '.eca.conv.')),
}

FILES = 1 + sum(c.kind == 'bundled' for c in checkpoints())  # with one that is imported


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
    return tmp_path / 'store'


def authors_state_dict(name: str) -> dict[str, torch.Tensor]:
    if name in WITH_LOGITS:
        state = reference_state_dict(WITH_LOGITS[name])
    else:
        kernels, (ours, theirs) = OTHERS[name]
        shapes = {k: list(v.shape) for k, v in timm.create_model(name, device='meta').state_dict().items()}
        for key in shapes:
            if key.endswith('.se.conv.weight'):
                shapes[key] = [1, 1, kernels[int(key[len('layer')]) - 1]]
        state = {(key := re.sub(ours, theirs, k)): fill(key, shape) for k, shape in shapes.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def authors_file(folder: Path, name: str) -> Path:
    """As their scripts save it: data-parallel keys in a wrapper with what belongs to the training."""
    path = folder / 'model_best.pth.tar'
    state = {f'module.{k}': v for k, v in authors_state_dict(name).items()}
    extra = {'epoch': 100, 'arch': 'se_resnet', 'best_prec1': np.float64(77.4), 'args': argparse.Namespace(lr=0.1)}
    torch.save({'state_dict': state, **extra}, path)
    return path


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


NAME, BUNDLED = 'resnet18_eca', 'cifar_resnet20_simam.fmnist'


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


SHA256 = 'a' * 64
SIZES = ('1e400', '-1', '0', '1.5', '[1]', 'true', '"1"', 'NaN')
DAMAGED_NOTES = [
    '{"size": 1',
    '[]',
    '{"size": 1, "sha256": 2}',
    '{"size": 1, "sha256": "../x"}',
    *(
        f'{{"size": {size}, "sha256": "{SHA256}", "source_sha256": "{SHA256}"}}'
        for size in ('1e400', '-1', '0', '1.5', '[1]', 'true', '"1"', 'NaN')
    ),
    f'{{"sha256": "{SHA256}", "source_sha256": "{SHA256}"}}',
    f'{{"size": 1, "sha256": "{SHA256}"}}',
    f'{{"size": 1, "sha256": "{SHA256}", "source_sha256": "x"}}',
    '[' * 60_000,
    '\xff\xfe',
]


@pytest.mark.parametrize('note', DAMAGED_NOTES, ids=lambda note: note[:12])
def test_a_damaged_note(note: str, tmp_path: Path, store: Path) -> None:
    """Everything but its checkpoint works, and a new import heals it."""
    checkpoint = UPSTREAM[NAME]
    store.mkdir()
    record_path(checkpoint).write_text(note, encoding='latin-1')
    says = rf'{checkpoint.full_name}.json is damaged .*: `timm-attn weights remove {checkpoint.full_name}` removes it'
    for call in (lambda: timm.create_model(NAME, pretrained=True), verify_all):
        with pytest.raises(RuntimeError, match=says) as error:
            call()
    assert f'1 of {FILES} files' in str(error.value)
    assert any(re.search(says, line) for line in listing())
    assert timm.create_model('cifar_resnet20_simam', pretrained=True, pretrained_cfg=timm.get_pretrained_cfg(BUNDLED))
    import_checkpoint(NAME, authors_file(tmp_path, NAME))
    assert timm.create_model(NAME, pretrained=True) is not None


def test_a_note_is_not_read_beyond_what_a_note_has(store: Path) -> None:
    store.mkdir()
    with record_path(UPSTREAM[NAME]).open('wb') as file:
        file.truncate(2 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(RuntimeError, match=r'is damaged \(.*more than 65,536 bytes'):
        timm.create_model(NAME, pretrained=True)
    assert remove(NAME) == [] and not list(store.iterdir())


def test_a_folder_in_place_of_a_note_hides_no_other_line(store: Path) -> None:
    record_path(UPSTREAM[NAME]).mkdir(parents=True)
    assert sum('is damaged' in line for line in listing()) == 1 and len(listing()) == len(checkpoints())
    with pytest.raises(RuntimeError, match='is damaged'):
        verify_all()


def other_file(folder: Path, name: str) -> Path:
    """Another checkpoint of the same net."""
    state = authors_state_dict(name)
    return _saved(folder, {**state, 'fc.bias': state['fc.bias'] + 1})


def test_two_imports_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """Another process imports a while this one, which imported b, looks for what is to be deleted."""
    a, b = authors_file(tmp_path, NAME), other_file(tmp_path, NAME)
    first = import_checkpoint(NAME, a)
    sweep = importing.sweep_store

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(importing, 'sweep_store', sweep)
        import_checkpoint(NAME, a)
        sweep(*args)

    monkeypatch.setattr(importing, 'sweep_store', meanwhile)
    second = import_checkpoint(NAME, b)
    assert second != first == path_of(NAME) and f'{UPSTREAM[NAME].full_name}: ok' in verify_all()


def test_an_import_and_a_removal_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """The file is removed between its writing and that of its note."""
    a = authors_file(tmp_path, NAME)
    replacing = importing.replacing
    before: list[Path] = []

    def meanwhile(target: Path) -> Any:
        if target.suffix == '.json' and not before:
            before.extend(remove(NAME))
        return replacing(target)

    monkeypatch.setattr(importing, 'replacing', meanwhile)
    assert [import_checkpoint(NAME, a)] == before and path_of(NAME) == before[0]


def test_what_is_an_hour_old_is_swept(tmp_path: Path, store: Path) -> None:
    """Files of earlier imports, and partial files of any name; nothing else, and nothing of what is younger."""
    first = import_checkpoint(NAME, authors_file(tmp_path, NAME))
    others = [
        store / f'.resnet50_eca.authors_in1k-{"0" * 16}.safetensors.ab12cd34.partial',
        store / '.resnet50_eca.authors_in1k.json.ab12cd34.partial',
    ]
    kept = [
        store / f'resnet50_eca.authors_in1k-{"0" * 16}.safetensors',
        store / f'{UPSTREAM[NAME].full_name}.safetensors',
        store / '.photo.partial',
        store / 'notes.txt',
    ]
    for path in (*others, *kept):
        path.write_bytes(b'')
    second = import_checkpoint(NAME, other_file(tmp_path, NAME))
    assert all(path.exists() for path in (first, second, *others, *kept))
    for path in store.iterdir():
        os.utime(path, (time.time() - 4000,) * 2)
    assert import_checkpoint(NAME, other_file(tmp_path, NAME)) == second
    assert not any(path.exists() for path in (first, *others)) and all(path.exists() for path in (second, *kept))
    assert path_of(NAME) == second


def test_all_files_of_a_name_are_removed(tmp_path: Path, store: Path) -> None:
    files = [import_checkpoint(NAME, make(tmp_path, NAME)) for make in (authors_file, other_file)]
    other = import_checkpoint('resnet18_simam', authors_file(tmp_path, 'resnet18_simam'))
    assert remove(NAME) == sorted(files)
    assert sorted(store.iterdir()) == sorted([other, record_path(UPSTREAM['resnet18_simam'])])


def test_what_is_not_ours_to_delete_stops_no_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    """A stale file of another user in a shared folder."""
    store.mkdir()
    stale = store / f'.{UPSTREAM[NAME].full_name}.json.ab12cd34.partial'
    stale.write_bytes(b'')
    os.utime(stale, (time.time() - 4000,) * 2)
    unlink = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:
        if self == stale:
            raise PermissionError(13, 'Permission denied', str(self))
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, 'unlink', refuse)
    assert import_checkpoint(NAME, authors_file(tmp_path, NAME)) == path_of(NAME)


def test_verify_while_another_process_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    import_checkpoint(NAME, authors_file(tmp_path, NAME))
    digest = inventory.damage

    def meanwhile(file: Any) -> str:
        if file.path.parent == store:
            remove(NAME)
        return digest(file)

    monkeypatch.setattr(inventory, 'damage', meanwhile)
    assert verify_all() == [f'{c.full_name}: ok' for c in checkpoints() if c.kind == 'bundled']


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


def _saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / 'x.pth')
    return folder / 'x.pth'


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
    path = _saved(tmp_path, change(authors_state_dict(NAME)))
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
