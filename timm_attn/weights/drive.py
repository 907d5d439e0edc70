"""Files and folders of Google Drive, through gdown, which knows the pages that Drive sends before a file."""

import importlib
import re
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from tqdm import tqdm

from timm_attn.weights.fetch import ANSWER_S
from timm_attn.weights.store import cannot_write

_MOST_FILES = 20  # of a folder; SimAM's has six
_OF_CONNECTION = (ConnectionError, TimeoutError)
_OPTIONS: dict[str, Any] = dict(quiet=True, use_cookies=False, timeout=ANSWER_S)


def on_drive(url: str) -> bool:
    """Whether a URL is a file or a folder of Google Drive."""
    return re.match(r'https://drive\.google\.com/', url) is not None


def files_at(url: str, wanted: str) -> list[tuple[str, str]]:
    """Name and address of the file at a URL of Drive, or of the files in the folder there, the likeliest name first.

    Raises:
        RuntimeError: gdown is missing, or Drive does not list the folder.
    """
    if '/folders/' not in url:
        return [('the file', url)]
    listed = _ask(lambda gdown: gdown.download_folder(url=url, skip_download=True, **_OPTIONS))
    listed.sort(key=lambda file: -SequenceMatcher(None, wanted, file.path.lower()).ratio())
    return [(file.path, f'https://drive.google.com/uc?id={file.id}') for file in listed[:_MOST_FILES]]


def fetch_drive(url: str, target: Path, title: str, most: int) -> None:
    """Downloads a file of Drive.

    Raises:
        RuntimeError: gdown is missing, Drive does not give the file, or it has more than `most` bytes.
        OSError: the file cannot be written.
    """
    with tqdm(unit='B', unit_scale=True, desc=title, disable=None) as bar:

        def bounded(received: int, announced: int | None) -> None:
            if max(received, announced or 0) > most:
                raise RuntimeError(f'it has more than the {most:,} bytes expected')
            bar.total = announced
            bar.update(received - bar.n)

        try:
            _ask(lambda gdown: gdown.download(url=url, output=str(target), progress=bounded, **_OPTIONS))
        except OSError as error:
            raise cannot_write(title, target.parent, error) from error


def _ask(call: Callable[[Any], Any]) -> Any:
    try:
        gdown = importlib.import_module('gdown')
    except ModuleNotFoundError as error:
        raise RuntimeError('gdown is missing: pip install gdown') from error
    try:
        return call(gdown)
    except Exception as error:  # gdown, requests and its parser of pages raise exceptions of many kinds
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, _OF_CONNECTION):
            raise  # of the disk
        reason = getattr(next(iter(error.args), None), 'reason', error)  # what urllib3 wraps in its own retries
        raise RuntimeError(' '.join(str(reason).split()) or type(error).__name__) from error
