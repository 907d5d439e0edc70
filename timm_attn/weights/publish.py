"""Publishes a training script's checkpoint on the Hugging Face Hub, with a record for the manifest."""

import datetime
import inspect
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import HfApi
from timm.models import is_model_in_modules, save_for_hf

from timm_attn.attention import attention_layers
from timm_attn.weights.manifest import HUB_PATTERNS, LICENSE, PATTERNS, Checkpoint
from timm_attn.weights.store import file_digest
from timm_attn.weights.trained import input_settings, read_training_file, trained_model, training_arguments

FILENAME = 'model.safetensors'
LICENSE_BY_DEFAULT = 'apache-2.0'
_logger = logging.getLogger(__name__)


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
    recipe_yaml: str = '',
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
        recipe_yaml: its text, for a file recipe.yaml of the folder; '' writes none.
        settings: the recipe's values. Those of the input go into the config, before the file's; those of the model
            must not contradict it.
        metrics: rows as in the manifest.

    Returns:
        The record, without the hub's revision.

    Raises:
        ValueError: the file is no checkpoint of that model, or a name or an option is not valid; nothing is written.
        OSError: the folder exists with files in it, or cannot be written.
    """
    if not re.fullmatch(PATTERNS['name'], name) or not is_model_in_modules(name, 'zoo'):
        raise ValueError(f'Unknown model {name!r}: `timm-attn list` shows the names.')
    if not re.fullmatch(PATTERNS['tag'], tag):
        raise ValueError(f'A tag is made of a-z, 0-9 and _, such as {name.partition("_")[2]}_in1k, but got {tag!r}.')
    if not re.fullmatch(HUB_PATTERNS['id'], repo):
        raise ValueError(f'A repository is ORGANISATION/NAME, but got {repo!r}.')
    if not re.fullmatch(LICENSE, license):
        raise ValueError(f'A licence is an SPDX identifier such as Apache-2.0, but got {license!r}.')
    for row in metrics:
        if not row.get('dataset'):
            raise ValueError(f'An accuracy must come with its dataset (--dataset), but got {dict(row)}.')
        if not all(0 <= row.get(key, 0) <= 100 for key in ('top1', 'top5')):
            raise ValueError(f'Accuracies are in percent, but got {dict(row)}.')
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'{folder} is not empty: name a new folder.')
    content = read_training_file(file)
    sources = settings or {}, {'model_kwargs': {'attn_kwargs': attn_kwargs}}
    trained = trained_model(content, name, file, *sources, ema=ema, overlay={'tag': tag, 'license': license})
    model, model_args, label_names = trained.model, trained.options, trained.class_names
    data_config = input_settings(settings or {}, trained.input)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{folder.name}.', dir=folder.parent) as scratch:
        whole = Path(scratch, folder.name)
        said = dict(model_config=dict(label_names=label_names), model_args=model_args, data_config=data_config)
        save_for_hf(model, str(whole), **said, safe_serialization=True)
        record = Checkpoint(
            name=name,
            tag=tag,
            kind='published',
            num_params=sum(p.numel() for p in model.parameters()),
            cfg=_cfg(whole),
            license=license,
            size=(whole / FILENAME).stat().st_size,
            sha256=file_digest(whole / FILENAME),
            model_args=model_args,
            metrics=tuple(metrics),
            training={'recipe': recipe, 'date': datetime.date.today().isoformat(), 'timm': timm.__version__},
        )
        (whole / 'README.md').write_text(_card(record, model, repo), encoding='utf-8')
        if recipe_yaml:
            (whole / 'recipe.yaml').write_text(recipe_yaml, encoding='utf-8')
        os.chmod(whole / FILENAME, 0o644)  # safetensors writes 600
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)
    return record


def license_of(content: Mapping[str, Any], name: str) -> str:
    """The licence of the weights that a training started from; the default one if it started from none.

    Args:
        content: of the checkpoint, of read_training_file.
        name: of the model, where the checkpoint does not say it.

    Raises:
        ValueError: the licence of those weights is not known.
    """
    if not training_arguments(content).get('pretrained'):
        return LICENSE_BY_DEFAULT
    start = content.get('arch') or name
    cfg = timm.models.get_arch_pretrained_cfgs(start.partition('.')[0]).get(start)
    if cfg is None or not cfg.license:
        raise ValueError(f'No licence is known of {start}, from which the training started: name one with --license.')
    return cfg.license


def metric_rows(given: Mapping[str, Any], measured: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The accuracy of a record, one row or none.

    Args:
        given: values that are set by hand. With a top1 they are the row, claimed unless there is a command; else they
            replace those of `measured`.
        measured: the row of the run that wrote the weights, if it is known.
    """
    if 'top1' in given:
        today, status = datetime.date.today().isoformat(), 'measured' if 'command' in given else 'claimed'
        return [{'split': 'validation', 'date': today, **given, 'status': status}]
    if measured is None:
        return []
    row = {**measured, **given}
    if 'dataset' not in row:
        _logger.warning(
            f'The top-1 accuracy of the run, {row["top1"]} %, is left out: its files do not name the data set, '
            f'which --dataset would.'
        )
        return []
    return [row]


def _cfg(folder: Path) -> dict[str, Any]:
    """The manifest's cfg, from config.json."""
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    cfg = {**config['pretrained_cfg'], **config}
    fields = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'num_classes', 'label_names')
    return {key: tuple(cfg[key]) if isinstance(cfg[key], list) else cfg[key] for key in fields if key in cfg}


def push(record: Checkpoint, folder: Path, repo: str, private: bool = False) -> Checkpoint:
    """Uploads a prepared folder; the record with the hub's id and revision.

    Raises:
        RuntimeError: the hub refuses it, or does not answer.
    """
    api = HfApi(library_name='timm')
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=f'Add {record.full_name}')
    except Exception as error:  # of another library with each version of the client
        why = ' '.join(str(error).split())
        raise RuntimeError(
            f'The hub did not take {repo} ({type(error).__name__}: {why}); {folder} is kept: remove it to try again.'
        ) from error
    return replace(record, hub={'id': repo, 'revision': commit.oid, 'filename': FILENAME})


def manifest_row(record: Checkpoint) -> dict[str, Any]:
    """The record as a row of weights_manifest.json, without empty fields."""
    return {key: value for key, value in asdict(record).items() if value or key in ('license', 'metrics')}


def _card(record: Checkpoint, model: Any, repo: str) -> str:
    """The model card: title, equation, options, recipe, accuracy, and how to load it."""
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
            *(
                [f'Options: `{", ".join(f"{key}={value!r}" for key, value in record.model_args.items())}`.', '']
                if record.model_args
                else []
            ),
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
