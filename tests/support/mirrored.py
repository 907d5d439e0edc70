"""A mirrored checkpoint that a test serves: the archive of a small net, and the record of it."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from tests.support.hub_server import LocalHub
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import store_dir

NAME, TAG, REPO, FILE = 'cifar_preresnet20_se', 'mine', 'org/toy', 'toy.pth.zip'


def saved(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def zipped(content: bytes, *names: str, packed: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', packed) as archive:
        for name in names or ('toy.pth',):
            archive.writestr(name, content)
    return out.getvalue()


def state_dict() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model(NAME, attn_kwargs=dict(bias=True)).state_dict()


PTH = saved(state_dict())


def at_address(hub: LocalHub, served: bytes, pth: bytes) -> dict[str, str]:
    """The origin of a record whose address gives some bytes, and whose digest is that of others."""
    url = f'{hub.url}/{REPO}/resolve/{hub.add(REPO, {FILE: served})}/{FILE}'
    return {'repository': 'https://example.org', 'url': url, 'sha1': hashlib.sha1(pth).hexdigest()}


def record_of(origin: Mapping[str, str]) -> Checkpoint:
    return Checkpoint(
        name=NAME,
        tag=TAG,
        kind='mirrored',
        num_params=sum(v.numel() for k, v in state_dict().items() if 'running' not in k and 'num_' not in k),
        cfg=dict(num_classes=10, input_size=(3, 32, 32)),
        license='MIT',
        model_args={'attn_kwargs': {'bias': True}},
        origin=origin,
    )


def model(**options: Any) -> Any:
    return timm.create_model(f'{NAME}.{TAG}', pretrained=True, **options)


def only_kept_files() -> bool:
    return all(p.suffix in ('.safetensors', '.json') for p in store_dir().glob('*'))
