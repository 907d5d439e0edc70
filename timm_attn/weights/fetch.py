"""Downloads that are hashed while they stream: a file that is not the expected one is not kept."""

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from huggingface_hub import constants
from tqdm import tqdm

from timm_attn.files import replacing
from timm_attn.weights.deadline import within
from timm_attn.weights.manifest import Checkpoint, checkpoints_of
from timm_attn.weights.store import cannot_write

_logger = logging.getLogger(__name__)

ANSWER_S = 8  # how long a server may be silent, before its first byte and between two
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


def verified_only() -> bool:
    """Whether the user refuses downloads whose bytes no record knows."""
    return os.environ.get('TIMM_ATTN_VERIFIED_ONLY', '0') not in ('', '0')


def permit_fetch(checkpoint: Checkpoint, why: str) -> None:
    """Passes if a checkpoint's weights may be downloaded, with a warning where their bytes are unknown.

    Args:
        why: they are needed, for the message.

    Raises:
        RuntimeError: HF_HUB_OFFLINE is set, or TIMM_ATTN_VERIFIED_ONLY and the record has no digest.
    """
    name = checkpoint.full_name
    if constants.HF_HUB_OFFLINE:
        raise RuntimeError(
            f'The weights of {name} {why}, and HF_HUB_OFFLINE is set: unset it once, or {checkpoint.by_hand}.'
        )
    if checkpoint.row.is_verified:
        return
    whose = f'{checkpoint.origin["repository"]}, licence: {checkpoint.license or "none named"}'
    if verified_only():
        others = [c.full_name for c in checkpoints_of(checkpoint.name) if c.row.is_verified]
        instead = f', or take {" or ".join(others)}' if others else ''
        raise RuntimeError(
            f'The weights of {name} ({whose}) have no known digest, and TIMM_ATTN_VERIFIED_ONLY is set: unset '
            f'it{instead}.'
        )
    _logger.warning(f'The weights of {name} ({whose}) are fetched unverified: no digest of them is known.')


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
            if 'text/html' in response.headers.get('Content-Type', ''):
                raise RuntimeError('the server sent an HTML page instead')
            received = _copy(response, file, digest, size or limit, title)
            if size is not None and received != size:
                raise RuntimeError(f'it has {received:,} bytes instead of {size:,}')
            found = digest.hexdigest()
            if sha256 is not None and found != sha256:
                raise RuntimeError(f'it has sha256 {found[:16]}... instead of {sha256[:16]}...')
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
    seconds = min(ANSWER_S, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    opener = urllib.request.build_opener(Redirects)
    with _connection():  # a name's lookup has no limit, and each address of a host has its own
        return within(ANSWER_S, lambda: opener.open(request, timeout=seconds))


def _copy(response: Any, file: BinaryIO, digest: Any, most: int | None, title: str) -> int:
    """Copies the body; the number of bytes. Raises RuntimeError beyond `most` bytes, announced or received."""
    received = 0
    announced = response.length or 0
    with tqdm(total=announced or most, unit='B', unit_scale=True, desc=title, disable=None) as bar:
        while piece := _read(response):
            received += len(piece)
            if most is not None and max(received, announced) > most:
                raise RuntimeError(f'it has more than the {most:,} bytes expected')
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


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, or from http to http; never to a file, nor from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ('https', req.type):
            raise urllib.error.URLError(f'a redirect to {newurl} is not followed')
        return super().redirect_request(req, fp, code, msg, headers, newurl)
