"""What a Hub keeps: the files of every commit of every repository, in memory."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass

LFS_SUFFIXES = ('.safetensors', '.bin', '.pt', '.pth', '.tar', '.zip', '.npz', '.pkl')
LFS_BYTES = 10 * 2**20  # a larger file is LFS whatever its name
GIT_ATTRIBUTES = ''.join(f'*{suffix} filter=lfs diff=lfs merge=lfs -text\n' for suffix in LFS_SUFFIXES).encode()


def is_lfs(name: str, size: int) -> bool:
    return size > 0 and (name.endswith(LFS_SUFFIXES) or size > LFS_BYTES)


@dataclass(frozen=True)
class Blob:
    """A file's bytes and its name on the Hub: the sha256 of an LFS file, git's sha1 of any other."""

    data: bytes
    lfs: bool
    etag: str

    @classmethod
    def of(cls, name: str, data: bytes) -> 'Blob':
        if is_lfs(name, len(data)):
            return cls(data, True, hashlib.sha256(data).hexdigest())
        return cls(data, False, hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest())


class Store:
    """Repositories, each a chain of commits with 40-hex names; a new one starts with .gitattributes, as on the Hub."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, Blob]]] = {}  # repository -> revision, newest last -> file -> blob
        self.uploads: dict[str, bytes] = {}  # LFS files received, by sha256
        self.lock = threading.Lock()

    def commit(self, repo: str, changes: Mapping[str, Blob | None]) -> str:
        """The name of a new commit on top of `main` that sets these files, or removes them where None."""
        with self.lock:
            commits = self.repos.setdefault(repo, {})
            parent = list(commits)[-1] if commits else repo
            before = commits.get(parent, {'.gitattributes': Blob.of('.gitattributes', GIT_ATTRIBUTES)})
            files = {name: blob for name, blob in {**before, **changes}.items() if blob is not None}
            content = json.dumps([parent, *((name, files[name].etag) for name in sorted(files))])
            revision = hashlib.sha1(content.encode()).hexdigest()
            commits[revision] = files
            return revision

    def newest(self, repo: str) -> str:
        return list(self.repos[repo])[-1]

    def files(self, repo: str, revision: str = 'main') -> dict[str, bytes]:
        commit = self.newest(repo) if revision == 'main' else revision
        return {name: blob.data for name, blob in self.repos[repo][commit].items()}
