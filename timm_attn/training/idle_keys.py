"""Keys of a recipe that have no effect on a kind of data, which timm does not report."""

from dataclasses import fields
from pathlib import Path

from timm_attn.training.recipe import Recipe

# The kinds of timm's data sets, and their names in messages.
_KINDS = {
    'folder': 'a folder',
    'tar': 'a tar',
    'torch': 'a torch/ set',
    'hfds': 'a hfds/ set',
    'hfids': 'a hfids/ stream',
    'tfds': 'a tfds/ stream',
    'wds': 'a wds/ stream',
}
# The kinds on which a key has an effect. hfds/ sets are downloaded in any case.
WORKS_ON = {
    'class_map': ('folder', 'tar', 'hfds', 'hfids', 'tfds', 'wds'),
    'dataset_download': ('torch', 'hfds', 'hfids', 'tfds'),
    'input_key': ('folder', 'hfds', 'hfids', 'tfds', 'wds'),
    'target_key': ('hfds', 'hfids', 'tfds', 'wds'),
    'train_num_samples': ('hfids', 'wds'),
    'val_num_samples': ('hfids', 'wds'),
    'train_img_sizes': ('folder', 'tar', 'torch', 'hfds'),
}
# Keys that have no effect without another one.
NEEDS = {'train_batches_per_epoch': 'train_img_sizes'}


def refuse_idle(recipe: Recipe, data_dir: Path) -> None:
    """Raises a ValueError for a key that has no effect on the data of a training."""
    kinds = [kind_of(recipe, data_dir, split) for split in (recipe.train_split, recipe.val_split)]
    given = {f.name for f in fields(Recipe) if getattr(recipe, f.name) != f.default}
    for key in sorted(given & WORKS_ON.keys()):
        for kind in kinds:
            if kind not in WORKS_ON[key]:
                on = ', '.join(_KINDS[k] for k in WORKS_ON[key])
                raise ValueError(
                    f'The recipe has {key}: {getattr(recipe, key)!r}, which does nothing on {_KINDS[kind]}: '
                    f'leave it out, it is for {on}.'
                )
    for key in sorted(given & NEEDS.keys()):
        if NEEDS[key] not in given:
            raise ValueError(
                f'The recipe has {key}: {getattr(recipe, key)!r}, which does nothing without {NEEDS[key]}: '
                f'give both, or neither.'
            )


def kind_of(recipe: Recipe, data_dir: Path, split: str) -> str:
    """The kind of data that timm's create_dataset reads for a split.

    Raises:
        ValueError: the dataset has another prefix than timm's, for which timm would read the folder.
    """
    if recipe.dataset not in ('', 'folder'):
        prefix, slash, _ = recipe.dataset.partition('/')
        named = [kind for kind in _KINDS if kind not in ('folder', 'tar')]
        if not slash or prefix.lower() not in named:
            raise ValueError(
                f'The recipe has dataset: {recipe.dataset!r}, but it must be {", ".join(f"{k}/NAME" for k in named)}, '
                'or empty for a folder or tar.'
            )
        return prefix.lower()
    found = data_dir / split
    return 'tar' if found.suffix == '.tar' or (not found.exists() and Path(f'{found}.tar').is_file()) else 'folder'
