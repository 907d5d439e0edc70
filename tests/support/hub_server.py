"""A Hugging Face Hub on loopback, for the real huggingface_hub client or plain urllib, that can misbehave on purpose.

    with LocalHub() as hub:
        revision = hub.add('org/name', {'config.json': b'{}', 'model.safetensors': data})
        hub.fail('org/name', 'model.safetensors', 'once:truncated')
        subprocess.run([sys.executable, 'user.py'], env=hub.environ(tmp_path))
        assert ('GET', f'/org/name/resolve/{revision}/config.json') in hub.requests

As on the Hub, LFS files come by a redirect to another host name (localhost instead of 127.0.0.1) that refuses
credentials, and every commit stays addressable; `main` is the newest.
"""

import base64
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import yaml

from tests.support.hub_faults import CONTENT_FAULTS, FAULTS, RESOLVE_FAULTS, Fault, Headers
from tests.support.hub_store import Blob, Store, is_lfs

NO_METADATA = {'message': 'empty or missing yaml metadata in repo card'}


class LocalHub(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1 from `with` to its end, where an error of the server itself is raised.

    `requests` lists (method, path) of every request so far. With `token`, only who sends it is not answered 401.
    """

    request_queue_size = 64  # several processes of eight threads connect at once

    def __init__(self, token: str | None = None) -> None:
        super().__init__(('127.0.0.1', 0), Request)
        self.url = f'http://127.0.0.1:{self.server_port}'
        self.lfs_url = f'http://localhost:{self.server_port}/lfs'
        self.token = token
        self.store = Store()
        self.requests: list[tuple[str, str]] = []
        self.faults: dict[tuple[str, str], str] = {}
        self.errors: list[BaseException] = []
        self.closing = threading.Event()

    def __enter__(self) -> 'LocalHub':
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        if self.errors and error is None:
            raise self.errors[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):  # a client may hang up at any time
            self.errors.append(error)

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Commits files on top of `main`, creating the repository if need be; the new revision."""
        return self.store.commit(repo, {name: Blob.of(name, data) for name, data in files.items()})

    def fail(self, repo: str, file: str, fault: str) -> None:
        """Serves a file with a fault of hub_faults.FAULTS from now on, or with 'once:FAULT' the first time only."""
        if fault.removeprefix('once:') not in FAULTS:
            raise ValueError(f'no fault {fault!r}; there are {", ".join(FAULTS)}, and once: before any of them')
        self.faults[repo, file] = fault

    def take_fault(self, repo: str, file: str, table: dict[str, Fault]) -> Fault | None:
        with self.store.lock:
            once, _, fault = self.faults.get((repo, file), '').rpartition(':')
            if once and fault in table:
                del self.faults[repo, file]
            return table.get(fault)

    def environ(self, home: str | Path) -> dict[str, str]:
        """The environment of a process with only this Hub and its cache in `home`; the client reads it on import."""
        mine = {'HF_ENDPOINT': self.url, 'HF_HOME': str(home), 'NO_PROXY': '*'}
        quiet = {'HF_HUB_DISABLE_XET': '1', 'HF_HUB_DISABLE_TELEMETRY': '1'}  # both ask for more than a Hub's files
        return {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGING'))} | mine | quiet


class Refused(Exception):
    """The status and the X-Error-Code of an answer, which the client turns into its own exceptions."""


class Request(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: without kept connections, a hub that is closed answers nobody."""

    server: LocalHub

    def log_message(self, *args: Any) -> None:
        pass

    def do(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        self.body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        try:
            self.check_credentials(path)
            for methods, pattern, action in ROUTES:
                if self.command in methods.split() and (match := re.fullmatch(pattern, path)):
                    return action(self, *match.groups())
            raise Refused(404)
        except Refused as refused:
            self.refuse(*refused.args)

    do_HEAD = do_GET = do_POST = do_PUT = do

    def check_credentials(self, path: str) -> None:
        sent = self.headers.get('Authorization')
        if path.startswith('/lfs/'):
            if sent is not None:
                raise Refused(400)  # as S3, whose signed addresses bear no second credential; here, it would be a leak
        elif self.server.token is not None and sent != f'Bearer {self.server.token}':
            raise Refused(401, '' if sent else 'RepoNotFound')

    def answer(self, status: int, body: bytes, headers: Headers) -> None:
        self.send_response(status)
        for name, value in {'Content-Length': str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {'Content-Type': 'application/json'})

    def refuse(self, status: int, code: str = '') -> None:
        self.answer(status, code.encode(), {'X-Error-Code': code} if code else {})

    def revision(self, repo: str, revision: str | None = None) -> str:
        """The commit meant. To the anonymous a missing repository is a 401, as a private one is."""
        if repo not in self.server.store.repos:
            raise Refused(404 if 'Authorization' in self.headers else 401, 'RepoNotFound')
        if revision in (None, 'main'):
            return self.server.store.newest(repo)
        if revision not in self.server.store.repos[repo]:
            raise Refused(404, 'RevisionNotFound')
        return revision

    def files(self, repo: str, revision: str | None = None) -> dict[str, Blob]:
        commit = self.revision(repo, revision)
        return self.server.store.repos[repo][commit]

    # Download: model_info and tree say what there is, resolve gives a small file or the address of an LFS file

    def model_info(self, repo: str, revision: str | None) -> None:
        commit = self.revision(repo, revision)
        siblings = [{'rfilename': name} for name in self.files(repo, commit)]
        self.json({'id': repo, 'sha': commit, 'siblings': siblings})

    def tree(self, repo: str, revision: str) -> None:
        rows: list[dict[str, Any]] = []
        for name, blob in self.files(repo, revision).items():
            stat = {'size': len(blob.data), 'oid': blob.etag}
            lfs = {'lfs': {**stat, 'pointerSize': 130}} if blob.lfs else {}
            rows.append({'type': 'file', 'path': name, **stat, **lfs})
        self.json(rows)

    def resolve(self, repo: str, revision: str, file: str) -> None:
        commit = self.revision(repo, revision)
        blob = self.files(repo, commit).get(file)
        if blob is None:
            raise Refused(404, 'EntryNotFound')
        headers = {'X-Repo-Commit': commit, 'ETag': f'"{blob.etag}"'}
        if fault := self.server.take_fault(repo, file, RESOLVE_FAULTS):
            fault(self, blob.data, headers)
        elif blob.lfs:
            linked = {'X-Linked-ETag': f'"{blob.etag}"', 'X-Linked-Size': str(len(blob.data))}
            location = {'Location': f'{self.server.lfs_url}/{repo}/{commit}/{quote(file)}'}
            self.answer(302, b'', headers | linked | location)
        else:
            self.content(repo, file, blob, headers)

    def lfs_file(self, repo: str, revision: str, file: str) -> None:
        blob = self.files(repo, revision)[file]
        self.content(repo, file, blob, {'ETag': f'"{blob.etag}"'})

    def content(self, repo: str, file: str, blob: Blob, headers: Headers) -> None:
        if self.command == 'GET' and (fault := self.server.take_fault(repo, file, CONTENT_FAULTS)):
            fault(self, blob.data, headers)
        elif resumed := re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', '')):
            start, size = int(resumed[1]), len(blob.data)
            self.answer(206, blob.data[start:], {**headers, 'Content-Range': f'bytes {start}-{size - 1}/{size}'})
        else:
            self.answer(200, blob.data, headers)

    # Upload: create, validate_yaml, preupload (which files are LFS), lfs_batch (where to), put, verify, commit

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f'{asked.get("organization") or "user"}/{asked["name"]}'
        exists = repo in self.server.store.repos
        if not exists:
            self.server.add(repo, {})
        self.json({'url': f'{self.server.url}/{repo}'}, 409 if exists else 200)

    def validate_yaml(self) -> None:
        front = re.match(r'---\n(.*?)\n---', json.loads(self.body)['content'], re.DOTALL)
        try:
            metadata = yaml.safe_load(front[1]) if front else None
        except yaml.YAMLError as error:
            return self.json({'errors': [{'message': str(error)}], 'warnings': []}, 400)
        self.json({'errors': [], 'warnings': [] if isinstance(metadata, dict) else [NO_METADATA]})

    def preupload(self, repo: str, revision: str) -> None:
        before = {name: blob.etag for name, blob in self.files(repo, revision).items()}
        rows: list[dict[str, Any]] = []
        for file in json.loads(self.body)['files']:
            mode = 'lfs' if is_lfs(file['path'], file['size']) else 'regular'
            oid = before.get(file['path'])  # the client leaves out of a commit what did not change
            rows.append({'path': file['path'], 'uploadMode': mode, 'shouldIgnore': False, 'oid': oid})
        self.json({'files': rows})

    def lfs_batch(self, repo: str) -> None:
        self.revision(repo)
        rows: list[dict[str, Any]] = []
        for wanted in json.loads(self.body)['objects']:
            put = {'href': f'{self.server.lfs_url}/{wanted["oid"]}'}
            actions = {'upload': put, 'verify': {'href': f'{self.server.url}/{repo}.git/info/lfs/verify'}}
            rows.append(wanted if wanted['oid'] in self.server.store.uploads else {**wanted, 'actions': actions})
        self.json({'transfer': 'basic', 'objects': rows})

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400)
        self.server.store.uploads[oid] = self.body
        self.json({})

    def verify(self, repo: str) -> None:
        asked = json.loads(self.body)
        if len(self.server.store.uploads.get(asked['oid'], b'')) != asked['size']:
            raise Refused(404)
        self.json({})

    def commit(self, repo: str, revision: str) -> None:
        if self.revision(repo, revision) != self.server.store.newest(repo):
            raise Refused(412)
        changes: dict[str, Blob | None] = {}
        for line in map(json.loads, self.body.splitlines()):
            changes |= COMMIT_LINES[line['key']](self.server.store, line['value'])
        oid = self.server.store.commit(repo, changes)
        self.json({'commitOid': oid, 'commitUrl': f'{self.server.url}/{repo}/commit/{oid}'})


Changes = dict[str, Blob | None]
COMMIT_LINES: dict[str, Callable[[Store, dict[str, Any]], Changes]] = {
    'header': lambda store, line: {},
    'file': lambda store, line: {line['path']: Blob.of(line['path'], base64.b64decode(line['content']))},
    'lfsFile': lambda store, line: {line['path']: Blob(store.uploads[line['oid']], True, line['oid'])},
    'deletedFile': lambda store, line: {line['path']: None},
}
REPO, REVISION = r'([\w.-]+/[\w.-]+)', r'([^/]+)'
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ('HEAD GET', f'/{REPO}/resolve/{REVISION}/(.+)', Request.resolve),
    ('HEAD GET', f'/lfs/{REPO}/{REVISION}/(.+)', Request.lfs_file),
    ('GET', f'/api/models/{REPO}(?:/revision/{REVISION})?', Request.model_info),
    ('GET', f'/api/models/{REPO}/tree/{REVISION}', Request.tree),
    ('POST', '/api/repos/create', Request.create),
    ('POST', '/api/validate-yaml', Request.validate_yaml),
    ('POST', f'/api/models/{REPO}/preupload/{REVISION}', Request.preupload),
    ('POST', rf'/{REPO}\.git/info/lfs/objects/batch', Request.lfs_batch),
    ('PUT', '/lfs/([0-9a-f]{64})', Request.put),
    ('POST', rf'/{REPO}\.git/info/lfs/verify', Request.verify),
    ('POST', f'/api/models/{REPO}/commit/{REVISION}', Request.commit),
]
