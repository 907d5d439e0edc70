"""Downloads that are hashed while they stream: a file that is not the expected one is not kept."""

import hashlib
import http.client
import importlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from huggingface_hub import constants, get_token
from tqdm import tqdm

from timm_attn.files import replacing
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import cannot_write, sweep_store

_PIECE = 1 << 20

# What the Hub's X-Error-Code, or else the HTTP status, means.
_MEANINGS: Mapping[str | int, str] = {
    'RepoNotFound': 'there is no such repository, or it is private: set HF_TOKEN',
    'RevisionNotFound': 'the repository has no such revision',
    'EntryNotFound': 'the repository has no such file at this revision',
    'GatedRepo': 'access to the repository must be asked for on its page, then set HF_TOKEN',
    401: 'there is no such repository, or it is private: set HF_TOKEN',
    403: 'access is denied',
    404: 'there is no such file',
}


def fetch_published(checkpoint: Checkpoint, target: Path, why: str) -> None:
    """Downloads a published checkpoint's pinned file to `target`; `why` it is needed goes into the message.

    Raises:
        RuntimeError: offline, no answer, an HTTP error, or bytes that are not the published ones.
        OSError: the file cannot be written.
    """
    assert checkpoint.hub is not None and checkpoint.size is not None and checkpoint.sha256 is not None
    hub = checkpoint.hub
    url = f'{constants.ENDPOINT}/{hub["id"]}/resolve/{hub["revision"]}/{hub["filename"]}'
    if constants.HF_HUB_OFFLINE:
        raise RuntimeError(
            f'The weights of {checkpoint.full_name} {why}, and HF_HUB_OFFLINE is set: unset it once, or set '
            f'TIMM_ATTN_HOME to a folder that has {target.name}.'
        )
    download(url, target, checkpoint.full_name, size=checkpoint.size, sha256=checkpoint.sha256, token=get_token())
    sweep_store(checkpoint, target.parent)


def on_drive(url: str) -> bool:
    """Whether a URL is a file on Google Drive, which sends a page of confirmation first."""
    return re.match(r'https://drive\.google\.com/(open|uc)\?id=', url) is not None


def fetchable(checkpoint: Checkpoint) -> list[Mapping[str, str]]:
    """The sources of an upstream checkpoint that are files; the others are pages for a browser."""
    files = ('.zip', '.pth', '.tar', '.safetensors')
    return [row for row in checkpoint.origin['sources'] if on_drive(row['url']) or row['url'].endswith(files)]


def fetch_upstream(checkpoint: Checkpoint, target: Path, limit: int) -> str | None:
    """Downloads the authors' file from the first source that is one; the sha1 it must have, where that is known.

    Raises:
        RuntimeError: there is no such source, or it does not give the file.
    """
    sources = fetchable(checkpoint)
    if not sources:
        pages = ', '.join(row['url'] for row in checkpoint.origin['sources'])
        raise RuntimeError(
            f'{checkpoint.full_name} has no address that can be fetched: download it in a browser from {pages}, then '
            f'run `timm-attn weights import {checkpoint.full_name} FILE`.'
        )
    url = sources[0]['url']
    if on_drive(url):
        _fetch_from_drive(checkpoint, url, target)
    else:
        download(url, target, checkpoint.full_name, limit=limit)
    return sources[0].get('sha1')


def _fetch_from_drive(checkpoint: Checkpoint, url: str, target: Path) -> None:
    name = checkpoint.full_name
    by_hand = f'download {url} in a browser and run `timm-attn weights import {name} FILE`'
    try:
        gdown: Any = importlib.import_module('gdown')
    except ModuleNotFoundError as error:
        raise RuntimeError(f'{name} is on Google Drive: pip install "timm-attn[drive]", or {by_hand}.') from error
    try:
        given = gdown.download(url=url, output=str(target))
    except Exception as error:  # gdown and requests raise exceptions of many kinds
        raise RuntimeError(f'Google Drive did not give {name} ({" ".join(str(error).split())}): {by_hand}.') from error
    if given is None:
        raise RuntimeError(f'Google Drive did not give {name}: {by_hand}.')


def download(
    url: str,
    target: Path,
    title: str,
    *,
    size: int | None = None,
    limit: int | None = None,
    sha256: str | None = None,
    token: str | bool | None = None,
) -> None:
    """Streams a URL into `target`, which appears only when size and sha256 are right.

    Args:
        title: what messages call the file.
        size: the expected bytes; where they are unknown, `limit` is the most.
        token: sent to the host of the URL, not to one that it redirects to.

    Raises:
        RuntimeError: no answer, an HTTP error, other bytes than promised.
        OSError: the file cannot be written.
    """
    request = urllib.request.Request(url, headers={'User-Agent': 'timm_attn'})
    if token:
        request.add_unredirected_header('Authorization', f'Bearer {token}')
    digest = hashlib.sha256()
    try:
        with _open(request) as response, replacing(target) as file:
            received = _copy(response, file, digest, size or limit, title)
            if size is not None and received != size:
                raise RuntimeError(f'it has {received:,} bytes instead of {size:,}{_html(response)}')
            found = digest.hexdigest()
            if sha256 is not None and found != sha256:
                raise RuntimeError(f'it has sha256 {found[:16]}... instead of {sha256[:16]}...{_html(response)}')
    except urllib.error.HTTPError as error:
        meaning = _meaning(error, bool(token))
        raise RuntimeError(f'{title} could not be fetched from {url}: HTTP {error.code}, {meaning}.') from error
    except (urllib.error.URLError, http.client.HTTPException) as error:
        why = getattr(error, 'reason', None) or error
        kind = type(error if isinstance(why, str) else why).__name__
        raise RuntimeError(f'{title} could not be fetched from {url}: {why!s} ({kind}).') from error
    except RuntimeError as error:
        raise RuntimeError(f'{title} from {url} was not kept: {error}.') from error
    except OSError as error:
        raise cannot_write(title, target.parent, error) from error


def _meaning(error: urllib.error.HTTPError, token: bool) -> str:
    code = error.headers.get('X-Error-Code', '')
    if error.code == 401 and token and code not in _MEANINGS:
        return 'HF_TOKEN is not accepted: renew it, or unset it for a public repository'
    return _MEANINGS.get(code) or _MEANINGS.get(error.code, error.reason)


def _open(request: urllib.request.Request) -> Any:
    with _connection():
        return urllib.request.build_opener(Redirects).open(request, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _copy(response: Any, file: BinaryIO, digest: Any, most: int | None, title: str) -> int:
    """Copies the body; the number of bytes. Raises RuntimeError beyond `most` bytes."""
    received = 0
    announced = response.length or 0
    with tqdm(total=announced or most, unit='B', unit_scale=True, desc=title, disable=None) as bar:
        while piece := _read(response):
            received += len(piece)
            if most is not None and received > most:
                raise RuntimeError(f'it has more than the {most:,} bytes expected{_html(response)}')
            file.write(piece)
            digest.update(piece)
            bar.update(len(piece))
    if received < announced:
        raise RuntimeError(f'the connection ended after {received:,} of {announced:,} bytes')
    return received


def _read(response: Any) -> bytes:
    with _connection():
        piece: bytes = response.read(_PIECE)
    return piece


@contextmanager
def _connection() -> Iterator[None]:
    """Turns OSErrors inside the block into URLErrors: they are of the connection, not of the disk."""
    try:
        yield
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise urllib.error.URLError(error) from error


def _html(response: Any) -> str:
    """A hint where the server sent a page instead of a file, as Google Drive does to ask for a confirmation."""
    return ' (the server sent an HTML page)' if 'text/html' in response.headers.get('Content-Type', '') else ''


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, or from http to http; never to a file, nor from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ('https', req.type):
            raise urllib.error.URLError(f'a redirect to {newurl} is not followed')
        return super().redirect_request(req, fp, code, msg, headers, newurl)
