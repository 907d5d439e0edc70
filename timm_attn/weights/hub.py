"""Files of the Hugging Face Hub: those that this project published, and timm's own."""

from pathlib import Path

from huggingface_hub import constants, get_token, hf_hub_download, try_to_load_from_cache

from timm_attn.weights.fetch import download, permit_fetch, verified_only
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.reach import silence
from timm_attn.weights.store import stored_path, sweep_store


def fetch_published(checkpoint: Checkpoint, folder: str | Path | None, why: str) -> Path:
    """Downloads a published checkpoint's pinned file to the store; `why` it is needed goes into the message.

    Raises:
        RuntimeError: offline, no answer, an HTTP error, or bytes that are not the published ones.
        OSError: the file cannot be written.
    """
    path, hub = stored_path(checkpoint, folder), checkpoint.hub
    assert path is not None and hub is not None
    permit_fetch(checkpoint, why)
    url = f'{constants.ENDPOINT}/{hub["id"]}/resolve/{hub["revision"]}/{hub["filename"]}'
    token, known = get_token(), (checkpoint.size, checkpoint.sha256)
    download(url, path, checkpoint.full_name, size=known[0], sha256=known[1], token=token)
    sweep_store(checkpoint, folder)
    return path


def cached(checkpoint: Checkpoint, folder: str | Path | None = None) -> Path | None:
    """timm's file of a checkpoint in the Hub's cache; None where it is not there, or is not timm's."""
    if checkpoint.hub is None or checkpoint.sha256 is not None:
        return None
    found = try_to_load_from_cache(checkpoint.hub['id'], checkpoint.hub['filename'], cache_dir=folder)
    return Path(found) if isinstance(found, str) else None


def fetch_of_timm(checkpoint: Checkpoint, folder: str | Path | None, why: str) -> Path:
    """timm's file of a checkpoint in the Hub's cache, where timm looks too; downloaded by the Hub's client once.

    Raises:
        RuntimeError: offline, no answer within seconds, an error of the Hub's, or unverified files are refused.
    """
    here = cached(checkpoint, folder)
    if here is not None and not verified_only():
        return here
    permit_fetch(checkpoint, why)
    assert checkpoint.hub is not None
    fault = silence()
    if not fault:
        try:
            return Path(hf_hub_download(checkpoint.hub['id'], checkpoint.hub['filename'], cache_dir=folder))
        except Exception as error:  # of another library with each version of the client
            fault = ' '.join(str(error).split()) or type(error).__name__
    where = f'{constants.ENDPOINT}/{checkpoint.hub["id"]}'
    raise RuntimeError(f'{checkpoint.full_name} could not be fetched from {where}: {fault.rstrip(".")}.')
