"""Imported files in the store: their notes, two at once, what is swept and what is removed."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import timm

from tests.support.authors import BUNDLED, FILES, NAME, UPSTREAM, authors_file, other_file
from timm_attn.weights import checkpoints, importing, inventory
from timm_attn.weights.importing import import_checkpoint
from timm_attn.weights.inventory import listing, path_of, remove, verify_all
from timm_attn.weights.store import record_path

pytestmark = pytest.mark.usefixtures('store')

SHA256 = 'a' * 64


SIZES = ('1e400', '-1', '0', '1.5', '[1]', 'true', '"1"', 'NaN')


DAMAGED_NOTES = [
    '{"size": 1',
    '[]',
    '{"size": 1, "sha256": 2}',
    '{"size": 1, "sha256": "../x"}',
    *(
        f'{{"size": {size}, "sha256": "{SHA256}", "source_sha256": "{SHA256}", "imported": "2026-11-30"}}'
        for size in ('1e400', '-1', '0', '1.5', '[1]', 'true', '"1"', 'NaN')
    ),
    f'{{"sha256": "{SHA256}", "source_sha256": "{SHA256}"}}',
    f'{{"size": 1, "sha256": "{SHA256}"}}',
    f'{{"size": 1, "sha256": "{SHA256}", "source_sha256": "x"}}',
    f'{{"size": 1, "sha256": "{SHA256}", "source_sha256": "{SHA256}"}}',
    f'{{"size": 1, "sha256": "{SHA256}", "source_sha256": "{SHA256}", "imported": "once"}}',
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
