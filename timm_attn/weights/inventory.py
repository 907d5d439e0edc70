"""What is here of the manifest's checkpoints: for `timm-attn weights list`, `verify`, `path` and `remove`."""

from pathlib import Path

from timm_attn.weights.manifest import Checkpoint, checkpoints, find_full_name
from timm_attn.weights.store import record_path, stored_path
from timm_attn.weights.verify import damage, verified_path

_ABSENT = {'bundled': 'missing', 'published': 'not fetched', 'upstream': 'not imported'}


def is_present(checkpoint: Checkpoint, folder: str | Path | None = None) -> bool:
    """Whether a file, or the note of an import, is where the checkpoint's should be."""
    if record_path(checkpoint, folder).exists():
        return True
    path = stored_path(checkpoint, folder)
    return path is not None and path.exists()


def listing(folder: str | Path | None = None) -> list[str]:
    """One line per checkpoint: name, kind, where it is or why not, accuracy."""
    lines = []
    for checkpoint in checkpoints():
        try:
            path = stored_path(checkpoint, folder)
            here = str(path) if path is not None and path.exists() else _ABSENT[checkpoint.kind]
        except RuntimeError as error:
            here = str(error)
        top1 = ', '.join(f'{m["top1"]:.2f} % {m["dataset"]} ({m["status"]})' for m in checkpoint.metrics[:1])
        lines.append(f'{checkpoint.full_name}  {checkpoint.kind}  {top1}  {here}')
    return lines


def verify_all(folder: str | Path | None = None) -> list[str]:
    """One line per checkpoint that is here, after its file was hashed again.

    Raises:
        RuntimeError: files are damaged; the message names all of them.
    """
    present = [c for c in checkpoints() if c.kind == 'bundled' or is_present(c, folder)]
    found = {c.full_name: _damage(c, folder) for c in present}
    damaged = [f'the weights of {name} {what}' for name, what in found.items() if what]
    if damaged:
        raise RuntimeError(f'{len(damaged)} of {len(found)} files: {"; ".join(damaged)}.')
    return [f'{name}: ok' for name in found]


def _damage(checkpoint: Checkpoint, folder: str | Path | None) -> str:
    try:
        return damage(checkpoint, stored_path(checkpoint, folder), folder)
    except (RuntimeError, OSError) as error:  # of one checkpoint: the others are looked at all the same
        return f'cannot be looked at: {str(error).rstrip(".")}'


def path_of(full_name: str, folder: str | Path | None = None) -> Path:
    """The verified file of a checkpoint, fetched where need be.

    Raises:
        RuntimeError, OSError: see verified_path.
    """
    return verified_path(find_full_name(full_name), folder)


def remove(full_name: str, folder: str | Path | None = None) -> Path:
    """Deletes the local file of a published or imported checkpoint; the path it had.

    Raises:
        ValueError: it is bundled, or it is not here.
    """
    checkpoint = find_full_name(full_name)
    path = stored_path(checkpoint, folder)
    if checkpoint.kind == 'bundled':
        raise ValueError(f'{checkpoint.full_name} is a part of the package: it goes with `pip uninstall timm-attn`.')
    if path is None or not is_present(checkpoint, folder):
        raise ValueError(f'{checkpoint.full_name} is not here: nothing to remove.')
    record_path(checkpoint, folder).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return path
