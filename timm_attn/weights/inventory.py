"""The local files of the manifest's checkpoints: for `timm-attn weights list`, `verify`, `fetch`, `path`, `remove`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from timm_attn.weights.hub import cached
from timm_attn.weights.manifest import Checkpoint, checkpoints, find_full_name
from timm_attn.weights.store import record_path, stored, stored_files, stored_path, sweep_store
from timm_attn.weights.verify import damage, verified_path


def is_present(checkpoint: Checkpoint, folder: str | Path | None = None) -> bool:
    """Whether the checkpoint has a file in the store, or the note of one."""
    if record_path(checkpoint, folder).exists():
        return True
    path = stored_path(checkpoint, folder)
    return path is not None and path.exists()


def listing(folder: str | Path | None = None) -> list[str]:
    """One line per checkpoint: name, what `pretrained=True` does the first time, accuracy, and where its file is."""
    lines = []
    for checkpoint in checkpoints():
        try:
            path = stored_path(checkpoint, folder) or cached(checkpoint, folder)
            here = str(path) if path is not None and path.exists() else 'not here'
        except (RuntimeError, OSError) as error:  # one bad checkpoint does not hide the others
            here = str(error)
        top1 = ', '.join(f'{m["top1"]:.2f} % {m["dataset"]} ({m["status"]})' for m in checkpoint.metrics[:1])
        lines.append(f'{checkpoint.full_name}  {checkpoint.row.state}  {top1}  {here}')
    return lines


def verify_all(folder: str | Path | None = None) -> list[str]:
    """One line per checkpoint that is here, after its file was hashed again.

    Raises:
        RuntimeError: files are damaged; the message names all of them.
    """
    present = [c for c in checkpoints() if c.kind == 'bundled' or is_present(c, folder)]
    looked_at = ((c.full_name, _damage(c, folder)) for c in present)
    found = {name: what for name, what in looked_at if what is not None}
    damaged = [f'the weights of {name} {what}' for name, what in found.items() if what]
    if damaged:
        raise RuntimeError(f'{len(damaged)} of {len(found)} files: {"; ".join(damaged)}.')
    return [f'{name}: ok' for name in found]


def _damage(checkpoint: Checkpoint, folder: str | Path | None) -> str | None:
    """In words, '' for none; None where another process removed the checkpoint meanwhile."""
    try:
        file = stored(checkpoint, folder)
        found = damage(file) if file is not None else ''
    except (RuntimeError, OSError) as error:  # one bad checkpoint does not hide the others
        found = f'cannot be looked at: {str(error).rstrip(".")}'
    return found if checkpoint.kind == 'bundled' or is_present(checkpoint, folder) else None


def path_of(full_name: str, folder: str | Path | None = None) -> Path:
    """The verified file of a checkpoint, fetched where need be.

    Raises:
        RuntimeError, OSError: see verified_path.
    """
    return verified_path(find_full_name(full_name), folder)


def fetch(full_names: Sequence[str], folder: str | Path | None = None) -> Iterator[str]:
    """One line per checkpoint as soon as its file is here, or why it is not; all of the manifest without a name.

    Raises:
        RuntimeError: at the end, if any could not be fetched.
    """
    asked, failed = full_names or [c.full_name for c in checkpoints()], 0
    for full_name in asked:
        try:
            checkpoint = find_full_name(full_name)
            yield f'{checkpoint.full_name}: {verified_path(checkpoint, folder)}'
        except (RuntimeError, OSError) as error:  # one failure stops no other download
            failed += 1
            yield f'{full_name}: {" ".join(str(error).split())}'
    if failed:
        raise RuntimeError(f'{failed} of {len(asked)} checkpoints could not be fetched.')


def remove(full_name: str, folder: str | Path | None = None) -> list[Path]:
    """Deletes every file of a checkpoint in the store; the paths they had.

    Raises:
        ValueError: it is kept elsewhere, or it is not here.
        OSError: a file cannot be deleted.
    """
    checkpoint = find_full_name(full_name)
    if checkpoint.row.kept_by:
        raise ValueError(f'{checkpoint.full_name} {checkpoint.row.kept_by}.')
    note = record_path(checkpoint, folder)
    files = stored_files(checkpoint, folder)
    if not files and not note.exists():
        raise ValueError(f'{checkpoint.full_name} is not here: nothing to remove.')
    # the note last: if two processes convert and remove at once, no note is left without its file
    for path in (*files, note):
        path.unlink(missing_ok=True)
    sweep_store(checkpoint, folder)
    return files
