"""What a server, a file, a disk and a process can do to a mirrored checkpoint."""

import errno
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.hub_server import LocalHub
from tests.support.mirrored import (
    FILE,
    NAME,
    PTH,
    REPO,
    TAG,
    at_address,
    model,
    only_kept_files,
    record_of,
    saved,
    state_dict,
    zipped,
)
from tests.support.records import registered
from timm_attn.weights import fetch, importing, verified_path
from timm_attn.weights.inventory import is_present, remove
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import record_path, store_dir, stored_path

pytestmark = pytest.mark.usefixtures('timm_fetches_nothing')

HTML = b'<!DOCTYPE html><html><body>Please sign in.</body></html>'
NOT_FINITE = saved({k: v * float('nan') if v.is_floating_point() else v for k, v in state_dict().items()})


BOMB = bytes(50_000_000)
OTHER = saved({'x': torch.ones(1)})


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ('touch evil_was_here',)


EVIL = saved({'state_dict': state_dict(), 'extra': Evil()})
# (the bytes at the address, the .pth whose SHA-1 the record has, what is said)
CONTENTS: dict[str, tuple[bytes, bytes, str]] = {
    'another digest': (zipped(PTH + b'x'), PTH, r'its SHA-1 is \w{40} instead of \w{40}\.$'),
    'two members': (zipped(b'x', 'a.pth', 'b.pth'), PTH, 'must hold one checkpoint, but holds 2 files'),
    'a path': (zipped(PTH, '../a.pth'), PTH, r"holds '../a.pth', but must hold one file outside of any folder"),
    'an absolute path': (zipped(PTH, '/a.pth'), PTH, 'but must hold one file outside of any folder'),
    'cut': (zipped(PTH)[:-2000], PTH, 'its SHA-1 is'),
    'bomb': (zipped(BOMB, packed=zipfile.ZIP_DEFLATED), BOMB, 'unpacks to 50,000,000 bytes, more than the 1,3'),
    'too large': (bytes(2_000_000), bytes(2_000_000), 'it has more than the 1,3.* bytes expected'),
    'a page': (HTML, PTH, 'its SHA-1 is'),
    'a page with that digest': (zipped(HTML), HTML, 'is an HTML page, no checkpoint'),
    'code': (zipped(EVIL), EVIL, 'holds more than tensors and plain values; nothing was run'),
    'not finite': (zipped(NOT_FINITE), NOT_FINITE, 'has values that are not finite'),
    'another net': (
        zipped(saved({'x': torch.ones(1)})),
        saved({'x': torch.ones(1)}),
        'it has keys that the model lacks',
    ),
}


@pytest.mark.parametrize('what', CONTENTS)
def test_files_that_are_not_the_checkpoint(
    what: str, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    served, pth, message = CONTENTS[what]
    record = record_of(at_address(file_server, served, pth))
    with registered(monkeypatch, record):
        with pytest.raises(RuntimeError, match=message) as error:
            model()
    assert f'{NAME}.{TAG} from {record.origin["url"]} was not kept: ' in str(error.value)
    assert str(store_dir()) not in str(error.value) and str(error.value).count('\n') == 0
    assert not list(store_dir().iterdir()) and not Path('evil_was_here').exists()


@pytest.mark.parametrize(
    'fault, message',
    [
        ('404', 'HTTP 404'),
        ('500', 'HTTP 500, Internal Server Error'),
        ('truncated', r'was not kept: the connection ended after [\d,]+ of [\d,]+ bytes'),
        ('endless', r'was not kept: it has more than the 1,3[\d,]+ bytes expected'),
        ('flipped', r'was not kept: .*(damaged archive|SHA-1)'),
        ('html', 'was not kept: the server sent an HTML page instead'),
        ('slow', 'timed out'),
        ('reset', 'reset'),
        ('file_redirect', "'file:///etc/passwd' is not allowed"),
    ],
)
def test_faults_of_the_server(fault: str, message: str, mirrored: Checkpoint, file_server: LocalHub) -> None:
    file_server.fail(REPO, FILE, f'once:{fault}')
    with pytest.raises(RuntimeError, match=message) as error:
        model()
    assert len(str(error.value).splitlines()) == 1 and f'{NAME}.{TAG}' in str(error.value)
    assert not list(store_dir().iterdir())
    assert model() is not None  # a retry starts clean


@pytest.mark.parametrize('way', ['silent', 'lookup'])
def test_a_dead_network_is_one_sentence_within_seconds(
    way: str, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and says nothing, and a name's lookup that never ends."""
    assert fetch.ANSWER_S < 10
    monkeypatch.setattr(fetch, 'ANSWER_S', 0.5)
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen(1)
        if way == 'lookup':
            monkeypatch.setattr(socket, 'getaddrinfo', lambda *args: time.sleep(5))
        url = f'http://localhost:{silent.getsockname()[1]}/x.zip'
        start = time.monotonic()
        with pytest.raises(
            RuntimeError, match=f'could not be fetched from {url}: (timed out|no answer within 0.5 sec)'
        ):
            verified_path(record_of({'repository': 'https://example.org', 'url': url, 'sha1': 'a' * 40}))
    assert time.monotonic() - start < 2


def _fail(code: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    'call, code, message',
    [
        ('tempfile.mkdtemp', errno.EROFS, 'cannot be written to .*store .Read-only.*TIMM_ATTN_HOME'),
        (
            'timm_attn.weights.fetch.tqdm.update',
            errno.ENOSPC,
            'cannot be written to .*store/.* .No space.*TIMM_ATTN_HOME',
        ),
        ('shutil.copyfileobj', errno.ENOSPC, 'cannot be unpacked to .*store/.* .No space'),
        (
            'timm_attn.weights.importing.replacing',
            errno.ENOSPC,
            'cannot be written to .*store .No space.*TIMM_ATTN_HOME',
        ),
    ],
)
def test_a_full_disk_and_a_read_only_store(
    call: str, code: int, message: str, mirrored: Checkpoint, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(call, _fail(code))
        with pytest.raises(OSError, match=message) as error:
            model()
        assert error.value.errno == code
    assert not list(store_dir().iterdir())
    if call == 'tempfile.mkdtemp':
        assert not file_server.requests, 'what cannot be kept is not fetched'
    model()
    with monkeypatch.context() as patch:  # a warm store is only read
        for name in ('tempfile.mkdtemp', 'tempfile.mkstemp', 'os.replace'):
            patch.setattr(name, _fail(errno.EROFS))
        model()


def _in_a_child(run: Callable[[], object]) -> int:
    """Runs a function in a copy of this process; how that process ended."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    return child


def test_a_killed_process_leaves_nothing_that_counts(
    mirrored: Checkpoint, file_server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        os.kill(os.getpid(), 9)

    with monkeypatch.context() as patch:
        patch.setattr(importing, 'read_checkpoint', killed)
        child = _in_a_child(lambda: verified_path(mirrored))
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    (left,) = store_dir().iterdir()
    assert left.is_dir() and any(left.rglob('*.pth')) and not is_present(mirrored)
    model()
    assert left.exists() and is_present(mirrored)  # it may be another's, still at work
    for path in (left, *left.rglob('*')):
        os.utime(path, (time.time() - 4000,) * 2)
    remove(NAME)
    assert not list(store_dir().iterdir())


def test_two_processes_at_once(mirrored: Checkpoint) -> None:
    children = [_in_a_child(lambda: (verified_path(mirrored), os._exit(0))) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    path = stored_path(mirrored)
    assert path is not None and sorted(store_dir().iterdir()) == sorted([path, record_path(mirrored)])
    assert model() is not None


def test_several_threads_at_once(mirrored: Checkpoint) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(verified_path(mirrored))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [stored_path(mirrored)] * 3 and only_kept_files()
