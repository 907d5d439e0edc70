"""Whether weights of timm or of the Hub can be loaded, checked before the Hub's client retries for a minute."""

import timm
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.models import parse_model_name

from timm_attn.weights.deadline import within

_SECONDS = 5
_FILES = ('model.safetensors', 'pytorch_model.bin')  # timm's default files of a repository, in its order


def require_reachable(name: str) -> None:
    """Passes if a model's weights are in the Hub's cache, or if the Hub answers one request.

    Args:
        name: a model of timm's, with or without a tag, or `hf-hub:ORG/NAME`; others need no Hub.

    Raises:
        RuntimeError: neither holds, after 5 seconds at most.
    """
    source, model = parse_model_name(name)
    cfg = timm.get_pretrained_cfg(model) if not source else None
    repository = model if source == 'hf-hub' else cfg.hf_hub_id if cfg is not None and not cfg.file else None
    if not repository:
        return
    repo, _, revision = repository.partition('@')
    files = (cfg.hf_hub_filename,) if cfg is not None and cfg.hf_hub_filename else _FILES
    if any(isinstance(try_to_load_from_cache(repo, file, revision=revision or None), str) for file in files):
        return
    if constants.HF_HUB_OFFLINE:
        why, remedy = 'HF_HUB_OFFLINE is set', 'unset it once'
    else:
        why, remedy = silence(), 'connect, or set HF_ENDPOINT to a mirror'
    if why:
        raise RuntimeError(
            f'The weights of {name} must be fetched from {constants.ENDPOINT}/{repo}, but {why}: {remedy}, or take '
            'weights of your own.'
        )


def silence() -> str:
    """Why the Hub gives no answer, of whatever kind, in words; '' if it does."""
    try:
        within(_SECONDS, lambda: get_session().head(constants.ENDPOINT, timeout=_SECONDS))
    except TimeoutError:
        return f'it does not answer within {_SECONDS} seconds'
    except Exception as error:  # of another library with each version of the client
        return f'it cannot be reached ({" ".join(str(error).split()) or type(error).__name__})'
    return ''
