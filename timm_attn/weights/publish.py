"""From a training script's checkpoint to a repository of the Hugging Face Hub, and the manifest's record of it."""

import argparse
import datetime
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import HfApi
from timm.data import resolve_data_config
from timm.models import save_for_hf

from timm_attn.attach import attention_layers
from timm_attn.weights.convert import convert_state_dict
from timm_attn.weights.manifest import HUB_PATTERNS, PATTERNS, Checkpoint
from timm_attn.weights.read import read_checkpoint
from timm_attn.weights.store import file_digest

FILENAME = 'model.safetensors'
_EMA = ('state_dict_ema', 'model_ema')
# What the arguments of timm's train.py, or a recipe, say of the input.
_INPUT = ('input_size', 'img_size', 'in_chans', 'mean', 'std', 'interpolation', 'crop_pct')


def prepare(
    file: Path,
    name: str,
    repo: str,
    folder: Path,
    *,
    tag: str,
    license: str,
    ema: bool = True,
    attn_kwargs: Mapping[str, Any] | None = None,
    recipe: str = '',
    settings: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
) -> Checkpoint:
    """Writes model.safetensors, config.json and the model card of a checkpoint to a new folder.

    Args:
        file: of timm's train.py or of ours.
        repo: the repository that it is for, ORGANISATION/NAME.
        ema: take the averaged weights where the file has them.
        attn_kwargs: the attention's options that it was trained with, where the file does not say.
        recipe: what trained it, for the card.
        settings: the recipe's values; those of the input go into the config. Else those that the file has.
        metrics: rows as in the manifest.

    Returns:
        The record, without the hub's revision.

    Raises:
        ValueError: the file is no checkpoint of that model, or a name or an option is not valid; nothing is written.
        OSError: the folder exists with files in it, or cannot be written.
    """
    if not timm.is_model(name):
        raise ValueError(f'Unknown model {name!r}: `timm-attn list` shows the names.')
    if not re.fullmatch(PATTERNS['tag'], tag):
        raise ValueError(f'A tag is made of a-z, 0-9 and _, such as {name.partition("_")[2]}_in1k, but got {tag!r}.')
    if not re.fullmatch(HUB_PATTERNS['id'], repo):
        raise ValueError(f'A repository is ORGANISATION/NAME, but got {repo!r}.')
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'{folder} is not empty: name a new folder.')
    content = read_checkpoint(file)
    trained_with = _training_arguments(content)
    options = _attn_kwargs(trained_with, attn_kwargs)
    if content.get('arch', name) != name:
        raise ValueError(f'{file} is a checkpoint of {content["arch"]!r}, not of {name!r}.')
    model = _model(content, name, tag, ema, options, {**trained_with, **(settings or {})})
    folder.mkdir(parents=True, exist_ok=True)
    save_for_hf(model, str(folder), model_args={'attn_kwargs': options} if options else {}, safe_serialization=True)
    weights = folder / FILENAME
    os.chmod(weights, 0o644)  # safetensors writes 600
    cfg = {**model.pretrained_cfg, 'num_classes': model.num_classes}
    record = Checkpoint(
        name=name,
        tag=tag,
        kind='published',
        num_params=sum(p.numel() for p in model.parameters()),
        cfg={key: cfg[key] for key in ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'num_classes')},
        license=license,
        size=weights.stat().st_size,
        sha256=file_digest(weights),
        model_args={'attn_kwargs': options} if options else {},
        metrics=tuple(metrics),
        training={'recipe': recipe, 'date': datetime.date.today().isoformat(), 'timm': timm.__version__},
    )
    (folder / 'README.md').write_text(_card(record, model, repo), encoding='utf-8')
    return record


def push(record: Checkpoint, folder: Path, repo: str, private: bool = False) -> Checkpoint:
    """Uploads a prepared folder; the record with the hub's id and revision.

    Raises:
        RuntimeError: the hub refuses it, or does not answer.
    """
    api = HfApi(library_name='timm')
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=f'Add {record.full_name}')
    except Exception as error:  # the client's version decides whose exceptions a lost connection raises
        why = ' '.join(str(error).split())
        raise RuntimeError(f'The hub did not take {repo} ({type(error).__name__}: {why}); {folder} is kept.') from error
    return replace(record, hub={'id': repo, 'revision': commit.oid, 'filename': FILENAME})


def manifest_row(record: Checkpoint) -> dict[str, Any]:
    """The record as a row of weights_manifest.json, without what it has none of."""
    return {key: value for key, value in asdict(record).items() if value or key == 'license'}


def _training_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that timm's train.py keeps in its checkpoints."""
    args = content.get('args')
    return {k: v for k, v in vars(args).items() if v is not None} if isinstance(args, argparse.Namespace) else {}


def _attn_kwargs(trained_with: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    recorded = (trained_with.get('model_kwargs') or {}).get('attn_kwargs')
    if recorded and given and dict(recorded) != dict(given):
        raise ValueError(f'The checkpoint was trained with attn_kwargs {dict(recorded)}, but got {dict(given)}.')
    return dict(recorded or given or {})


def _model(
    content: Mapping[str, Any],
    name: str,
    tag: str,
    ema: bool,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Any:
    """The model with the checkpoint's weights, classes, channels and input settings."""
    averaged = next((content[key] for key in _EMA if key in content), None) if ema else None
    plain = {key: value for key, value in content.items() if key not in _EMA}
    state_dict = convert_state_dict(plain if averaged is None else averaged, name)
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    known = {key: settings[key] for key in _INPUT if settings.get(key)}
    config = resolve_data_config(known, pretrained_cfg=cfg.to_dict())
    overlay: dict[str, Any] = {'tag': tag, 'label_names': None}  # not those of the model's own default checkpoint
    overlay.update({key: config[key] for key in ('input_size', 'mean', 'std', 'interpolation', 'crop_pct')})
    arguments: dict[str, Any] = {'attn_kwargs': dict(options)} if options else {}
    model: Any = timm.create_model(
        name,
        num_classes=len(state_dict[f'{cfg.classifier}.weight']),
        in_chans=state_dict[f'{cfg.first_conv}.weight'].shape[1],
        pretrained_cfg_overlay=overlay,
        **arguments,
    )
    try:
        model.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f'The checkpoint does not fit {name} with attn_kwargs {dict(options)}: {" ".join(str(error).split())}'
        ) from error
    return model


def _card(record: Checkpoint, model: Any, repo: str) -> str:
    """The model card: what it is, its equation, how it was trained and measured, how to load it."""
    what = (inspect.getdoc(timm.model_entrypoint(record.name)) or '').partition('. ')[0]
    layers = list(attention_layers(model).values())
    equation = (inspect.getdoc(layers[0]) or '').splitlines()[0] if layers else ''
    rows = [
        f'| {m["dataset"]} | {m["split"]} | {m["top1"]} | {m.get("top5", "")} | {m["status"]} |' for m in record.metrics
    ]
    table = ['| data set | split | top-1 % | top-5 % | |', '| --- | --- | ---: | ---: | --- |', *rows] if rows else []
    return '\n'.join(
        [
            '---',
            f'license: {(record.license or "unknown").lower()}',
            'library_name: timm',
            'pipeline_tag: image-classification',
            'tags: [image-classification, timm, timm_attn]',
            '---',
            f'# {record.full_name}',
            '',
            f'{what}: {record.num_params:,} parameters, '
            f'{record.cfg["num_classes"]} classes, input {tuple(record.cfg["input_size"])}.',
            '',
            *([f'{len(layers)} x {type(layers[0]).__name__}: {equation}', ''] if layers else []),
            *([f'Options: `attn_kwargs={record.model_args["attn_kwargs"]}`.', ''] if record.model_args else []),
            *([f'Recipe: {record.training["recipe"]}.', ''] if record.training['recipe'] else []),
            *([*table, ''] if table else ['No accuracy is stated.', '']),
            '```python',
            'import timm, timm_attn  # pip install timm-attn',
            '',
            f"model = timm.create_model('hf-hub:{repo}', pretrained=True)",
            '```',
            '',
        ]
    )
