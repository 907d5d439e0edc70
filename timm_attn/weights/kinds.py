"""The kinds of checkpoints, one row per kind: what is known of their bytes, and what to do where they are not here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Kind(NamedTuple):
    """What the records of a kind have in common.

    Args:
        state: what `pretrained=True` does the first time.
        verified: by what the bytes are checked, for the README.
        required: the fields that a record must have, with a dot for one inside another.
        by_hand: what a user can do without a download; {name} and the fields of origin and hub are filled in.
        kept_by: for files outside of the store, whose they are and how they are deleted.
        bytes_per_parameter: the most that a download may have.
        in_other_keys: whether the file is kept in keys that are not ours, and converted when it is loaded.
    """

    state: str
    verified: str
    required: tuple[str, ...]
    by_hand: str
    kept_by: str = ''
    bytes_per_parameter: float = 0
    in_other_keys: bool = False

    @property
    def is_verified(self) -> bool:
        """Whether the record tells right bytes from wrong ones before the first download."""
        return self.state != UNVERIFIED


UNVERIFIED = 'fetched unverified'
_IMPORT = 'download {url} in a browser and run `timm-attn weights import {name} FILE`'

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        # trained by this project, in the wheel
        'bundled': Kind(
            'loads now',
            'sha256',
            ('file', 'size', 'sha256'),
            'reinstall timm_attn',
            'is a part of the package: it goes with `pip uninstall timm-attn`',
        ),
        # a safetensors file of a Hugging Face Hub repository, in our keys
        'published': Kind(
            'fetched on first use',
            'sha256',
            ('hub.id', 'hub.revision', 'hub.filename', 'size', 'sha256'),
            'set TIMM_ATTN_HOME to a folder that has them',
        ),
        # somebody's file at a plain address, perhaps in a zip archive; 1.2 times its float32 values
        'mirrored': Kind(
            'fetched on first use', 'SHA-1', ('origin.url', 'origin.sha1'), _IMPORT, bytes_per_parameter=4 * 1.2
        ),
        # a file of the authors' on Google Drive; float32 values, two moments of an optimizer, and room
        'upstream': Kind(UNVERIFIED, 'sha256 from then on', ('origin.url',), _IMPORT, bytes_per_parameter=16),
        # timm's own file of the same net, in timm's keys
        'timm': Kind(
            UNVERIFIED,
            'no digest',
            ('hub.id', 'hub.filename', 'origin'),
            'set HF_HOME to a folder whose cache has {id}',
            'is in the cache of the Hugging Face Hub, which timm shares: it goes with `hf cache`',
            in_other_keys=True,
        ),
    }
)
