"""The local hub is a hub to the real client and to timm, and each of its faults is the fault it is named after."""

import hashlib
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_faults import ENDLESS_BYTES, FAULTS, HTML
from tests.support.hub_server import LocalHub

REPO, FILE = 'org/name', 'model.safetensors'
DATA = bytes(range(256)) * 40
FILES = {FILE: DATA, 'config.json': b'{"a": 1}', 'sub/notes of mine.txt': b'deep'}
CLIENT = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.utils import HfHubHTTPError
api, args = HfApi(), sys.argv[1:]
def read(path): return Path(path).read_bytes().hex()
def error(call):
    try: call()
    except (HfHubHTTPError, ValueError) as e: return type(e).__name__
"""


def run(hub: LocalHub, home: Path, code: str, *args: str | Path, **environ: str) -> Any:
    """What a process of the hub's user prints last, as JSON."""
    command = [sys.executable, '-c', CLIENT + code, *map(str, args)]
    done = subprocess.run(command, env=hub.environ(home) | environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def get(hub: LocalHub, file: str = FILE, method: str = 'GET', timeout: float = 10, **headers: str) -> Any:
    request = urllib.request.Request(f'{hub.url}/{REPO}/resolve/main/{file}', headers=headers, method=method)
    return urllib.request.urlopen(request, timeout=timeout)


def sent(hub: LocalHub, method: str) -> list[str]:
    return [path for asked, path in hub.requests if asked == method]


def test_the_client_uploads(tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    code = """
folder = Path(args[0])
def upload(): return api.upload_folder(repo_id='org/name', folder_path=folder).oid
urls = [api.create_repo('org/name', exist_ok=True).repo_id for _ in range(2)]
oids = [upload(), upload()]
(folder / 'config.json').write_text('new')
oids.append(upload())
(folder / 'README.md').write_text('---\\nlicense: [\\n---\\nNot YAML')
print(json.dumps([urls, oids, error(upload), error(lambda: api.create_repo('org/name'))]))
"""
    with LocalHub() as hub:
        names, (first, second, third), bad_card, conflict = run(hub, tmp_path / 'home', code, folder)
    assert names == [REPO, REPO] and (bad_card, conflict) == ('ValueError', 'HfHubHTTPError')
    assert first == second != third == hub.store.newest(REPO) and len(hub.store.repos[REPO]) == 3
    attributes = hub.store.files(REPO)['.gitattributes']
    assert hub.store.files(REPO, first) == FILES | {'.gitattributes': attributes}
    assert hub.store.files(REPO, third) == FILES | {'.gitattributes': attributes, 'config.json': b'new'}
    assert sent(hub, 'PUT') == [f'/lfs/{hashlib.sha256(DATA).hexdigest()}']
    assert f'/{REPO}.git/info/lfs/verify' in sent(hub, 'POST')


def test_the_client_downloads_by_branch_and_by_commit(tmp_path: Path) -> None:
    code = """
shas = {r: read(hf_hub_download('org/name', 'model.safetensors', revision=r)) for r in ('main', *args)}
folder = Path(snapshot_download('org/name', revision=args[1]))
files = {p.relative_to(folder).as_posix(): read(p) for p in folder.rglob('*') if p.is_file()}
print(json.dumps([shas, files, api.list_repo_files('org/name'), api.model_info('org/name').sha]))
"""
    with LocalHub() as hub:
        old, new = hub.add(REPO, FILES), hub.add(REPO, {FILE: DATA[::-1]})
        by_revision, files, names, newest = run(hub, tmp_path, code, old, new)
    assert len({old, new}) == 2 and len(old) == 40
    assert by_revision == {'main': DATA[::-1].hex(), old: DATA.hex(), new: DATA[::-1].hex()}
    assert {n: bytes.fromhex(d) for n, d in files.items()} == hub.store.files(REPO)
    assert sorted(names) == sorted(files) and newest == new
    assert f'/lfs/{REPO}/{old}/{FILE}' in sent(hub, 'GET')


def test_a_warm_cache_asks_nothing_about_a_commit_and_one_thing_about_a_branch(tmp_path: Path) -> None:
    code = "print(json.dumps([read(hf_hub_download('org/name', 'model.safetensors', revision=r)) for r in args]))"
    with LocalHub() as hub:
        pin = hub.add(REPO, FILES)
        run(hub, tmp_path, code, pin, 'main')
        hub.requests.clear()
        assert run(hub, tmp_path, code, pin) == [DATA.hex()] and hub.requests == []
        assert run(hub, tmp_path, code, 'main') == [DATA.hex()]
        assert hub.requests == [('HEAD', f'/{REPO}/resolve/main/{FILE}')]
        assert run(hub, tmp_path, code, 'main', HF_HUB_OFFLINE='1') == [DATA.hex()] and len(hub.requests) == 1


def test_the_clients_errors(tmp_path: Path) -> None:
    code = """
def fetch(repo, revision, file): return error(lambda: hf_hub_download(repo, file, revision=revision))
print(json.dumps([
    fetch('org/none', 'main', 'f'), fetch('org/name', '0' * 40, 'f'), fetch('org/name', 'main', 'f'),
    error(lambda: api.list_repo_files('org/none')), error(lambda: api.model_info('org/name', revision='none')),
    error(lambda: api.upload_folder(repo_id='org/none', folder_path=args[0])), fetch('org/name', 'main', 'config.json'),
]))
"""
    (tmp_path / 'up').mkdir()
    (tmp_path / 'up' / 'f').write_bytes(b'f')
    with LocalHub() as hub:
        hub.add(REPO, FILES)
        names = run(hub, tmp_path, code, tmp_path / 'up')
    missing, no_file = 'RepositoryNotFoundError', ('EntryNotFoundError', 'RemoteEntryNotFoundError')
    assert names[:2] == [missing, 'RevisionNotFoundError'] and names[2] in no_file
    assert names[3:] == [missing, 'RevisionNotFoundError', missing, None]


def test_a_token_opens_the_hub_and_stays_with_it(tmp_path: Path) -> None:
    code = """
file = error(lambda: hf_hub_download('org/name', 'model.safetensors'))
made = error(lambda: api.create_repo('org/new'))
sent = file or made or error(lambda: api.upload_folder(repo_id='org/new', folder_path=args[0]))
print(json.dumps([file, made, sent]))
"""
    (tmp_path / 'up').mkdir()
    (tmp_path / 'up' / FILE).write_bytes(DATA)
    with LocalHub(token='hf_secret') as hub:
        hub.add(REPO, FILES)
        refused = ['RepositoryNotFoundError'] * 3
        assert run(hub, tmp_path, code, tmp_path / 'up') == refused
        wrong = run(hub, tmp_path, code, tmp_path / 'up', HF_TOKEN='hf_wrong')
        assert wrong == ['HfHubHTTPError'] * 3
        assert run(hub, tmp_path, code, tmp_path / 'up', HF_TOKEN='hf_secret') == [None, None, None]
        assert hub.store.files('org/new')[FILE] == DATA
        with pytest.raises(urllib.error.HTTPError, match='400'):  # urllib takes the token to the other host
            get(hub, Authorization='Bearer hf_secret')
        assert get(hub, 'config.json', Authorization='Bearer hf_secret').read() == FILES['config.json']


def test_timm_pushes_and_loads(tmp_path: Path) -> None:
    code = """
import timm, torch, timm_attn
def logits(model): return model.eval()(torch.ones(1, 3, 32, 32)).tolist()
model = timm.create_model('cifar_resnet20_simam')
pin = timm.models.push_to_hf_hub(model, 'org/name').oid
loaded = [logits(timm.create_model('hf-hub:org/name' + at, pretrained=True)) for at in ('', '@' + pin)]
print(json.dumps([pin, logits(model), loaded]))
"""
    with LocalHub() as hub:
        pin, logits, loaded = run(hub, tmp_path, code)
    assert loaded == [logits, logits] and pin == hub.store.newest(REPO)
    assert {'config.json', 'README.md', FILE} <= hub.store.files(REPO).keys()
    assert f'/{REPO}/resolve/main/{FILE}' in sent(hub, 'HEAD')
    assert not [path for _, path in hub.requests if f'/resolve/{pin}/' in path]  # what main brought


def test_the_client_meets_a_fault(tmp_path: Path) -> None:
    code = """
fetch = lambda: read(hf_hub_download('org/name', args[0]))
print(json.dumps([error(fetch), fetch()]))
"""
    with LocalHub() as hub:
        hub.add(REPO, FILES)
        hub.fail(REPO, 'config.json', 'once:401')
        assert run(hub, tmp_path, code, 'config.json') == ['RepositoryNotFoundError', FILES['config.json'].hex()]
        hub.fail(REPO, FILE, 'flipped')
        refused, read = run(hub, tmp_path, code, FILE)
    assert refused is None and len(read) == 2 * len(DATA) and read != DATA.hex()  # the client checks the size only


def test_etags_are_the_hubs_and_a_download_resumes() -> None:
    with LocalHub() as hub:
        hub.add(REPO, FILES)
        assert get(hub, method='HEAD').headers['ETag'] == f'"{hashlib.sha256(DATA).hexdigest()}"'
        of_git = '4a036f56bb619924ec4189bd84ed716c766971ae'  # printf '{"a": 1}' | git hash-object --stdin
        assert get(hub, 'config.json', method='HEAD').headers['ETag'] == f'"{of_git}"'
        answer = get(hub, Range='bytes=100-')
        assert (answer.status, answer.headers['Content-Range']) == (206, f'bytes 100-{len(DATA) - 1}/{len(DATA)}')
        assert answer.read() == DATA[100:]


def test_an_upload_that_is_not_what_it_claims_is_refused() -> None:
    with LocalHub() as hub:
        put = urllib.request.Request(f'{hub.lfs_url}/{hashlib.sha256(DATA).hexdigest()}', DATA[1:], method='PUT')
        with pytest.raises(urllib.error.HTTPError, match='400'):
            urllib.request.urlopen(put, timeout=10)
        assert hub.store.uploads == {}


def test_an_end_releases_who_waits_and_refuses_who_comes() -> None:
    with ThreadPoolExecutor() as pool:
        with LocalHub() as hub:
            hub.add(REPO, FILES)
            hub.fail(REPO, FILE, 'slow')
            waiting = pool.submit(get, hub, timeout=60)
            while len(hub.requests) < 2:
                time.sleep(0.01)
        assert isinstance(waiting.exception(timeout=5), ConnectionError)
    with pytest.raises(urllib.error.URLError, match='refused'):
        get(hub)


def test_an_error_of_the_hub_itself_and_an_unknown_fault_are_told() -> None:
    with pytest.raises(json.JSONDecodeError), LocalHub() as hub:
        with pytest.raises(ConnectionError):
            urllib.request.urlopen(f'{hub.url}/api/repos/create', data=b'no JSON', timeout=5)
    with pytest.raises(ValueError, match="no fault 'once:nope'; there are truncated, longer, "):
        hub.fail(REPO, FILE, 'once:nope')


def of_body(check: Callable[[bytes], bool]) -> Callable[[LocalHub], bool]:
    return lambda hub: check(get(hub).read())


def raises(kind: type[Exception], text: str) -> Callable[[LocalHub], bool]:
    def check(hub: LocalHub) -> bool:
        with pytest.raises(kind, match=text):
            get(hub, timeout=0.3).read()
        return True

    return check


HTTPError = urllib.error.HTTPError
SEEN = {
    'truncated': raises(http.client.IncompleteRead, f'{len(DATA) // 2} bytes read, {len(DATA) // 2} more expected'),
    'longer': of_body(lambda body: body[: len(DATA)] == DATA and len(body) > len(DATA)),
    'endless': lambda hub: (r := get(hub)).length is None and len(r.read()) == ENDLESS_BYTES,
    'flipped': of_body(
        lambda body: len(body) == len(DATA) and sum(a != b for a, b in zip(body, DATA, strict=True)) == 1
    ),
    'html': lambda hub: (r := get(hub)).headers['Content-Type'] == 'text/html' and r.read() == HTML,
    'lengthless': lambda hub: (r := get(hub)).headers['Content-Length'] == 'many' and r.read() == DATA[:1000],
    'slow': raises(TimeoutError, 'timed out'),
    'reset': raises(ConnectionResetError, 'reset'),
    'file_redirect': raises(HTTPError, "file:///etc/passwd' is not allowed"),
    'evil_etag': lambda hub: get(hub, method='HEAD').headers['ETag'] == '"../../../../x"',
    '404': raises(HTTPError, '404'),
    '401': raises(HTTPError, '401'),
    '500': raises(HTTPError, '500'),
}


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('once', ['', 'once:'])
def test_a_fault_is_what_its_name_says(fault: str, once: str) -> None:
    with LocalHub() as hub:
        hub.add(REPO, FILES)
        hub.add('org/other', FILES)
        hub.fail(REPO, FILE, once + fault)
        assert SEEN[fault](hub) and get(hub, 'config.json').read() == FILES['config.json']
        if once:
            assert get(hub).read() == DATA
        else:
            assert SEEN[fault](hub)
