"""weights_manifest.json against its schema, and the schema against records that are wrong."""

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import timm

from timm_attn.weights import checkpoints
from timm_attn.weights.manifest import HUB_PATTERNS, LICENSE, PACKAGE, PATTERNS, manifest_path

SCHEMA = json.loads((PACKAGE / 'weights' / 'schema.json').read_text())
MANIFEST = json.loads(manifest_path().read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PUBLISHED = {
    'name': 'resnet50_simam', 'tag': 'x_in1k', 'kind': 'published', 'num_params': 25557032, 'license': 'Apache-2.0',
    'cfg': {'num_classes': 1000, 'input_size': [3, 224, 224]}, 'size': 102, 'sha256': 'a' * 64,
    'hub': {'id': 'org/name', 'revision': 'b' * 40, 'filename': 'model.safetensors'},
    'metrics': [{'dataset': 'ImageNet-1k', 'split': 'validation', 'top1': 77.4, 'status': 'claimed'}],
    'training': {'recipe': 'simam', 'date': '2026-01-31', 'timm': '1.0.31'},
}  # fmt: skip


def test_the_manifest_is_valid() -> None:
    VALIDATOR.check_schema(SCHEMA)
    VALIDATOR.validate(MANIFEST)
    VALIDATOR.validate({**MANIFEST, 'checkpoints': [PUBLISHED]})


def test_no_two_records_have_one_name() -> None:
    names = [c.full_name for c in checkpoints()]
    assert len(names) == len(set(names))


def test_the_program_checks_the_same_patterns() -> None:
    fields = SCHEMA['$defs']['checkpoint']['properties']
    assert {k: p for k, p in PATTERNS.items() if k != 'kind'} == {
        k: fields[k]['pattern'].strip('^$') for k in PATTERNS if k != 'kind'
    }
    assert PATTERNS['kind'].split('|') == fields['kind']['enum']
    assert fields['license']['pattern'].strip('^$') == LICENSE
    hub = SCHEMA['$defs']['hub']['properties']
    assert HUB_PATTERNS == {k: hub[k]['pattern'].strip('^$') for k in HUB_PATTERNS}


@pytest.mark.parametrize('checkpoint', checkpoints(), ids=lambda c: c.full_name)
def test_a_record_fits_its_model(checkpoint: Any) -> None:
    model = timm.create_model(checkpoint.full_name, device='meta', **checkpoint.model_args)
    num_params = sum(p.numel() for p in model.parameters())
    kernels = 'eca' in checkpoint.name and checkpoint.kind == 'upstream'  # the authors' kernel sizes are others
    assert num_params == checkpoint.num_params or (kernels and abs(num_params - checkpoint.num_params) < 50)
    assert model.num_classes == checkpoint.cfg['num_classes']


@pytest.mark.parametrize(
    'change',
    [
        lambda r: r.update(extra=1),
        lambda r: r.update(name='ResNet50'),
        lambda r: r.update(name='../resnet50'),
        lambda r: r.update(tag='a/b'),
        lambda r: r.update(kind='other'),
        lambda r: r.update(sha256='a' * 63),
        lambda r: r.update(size=0),
        lambda r: r.update(kind='upstream'),
        lambda r: r.pop('hub'),
        lambda r: r['hub'].update(revision='main'),
        lambda r: r['hub'].update(filename='../model.safetensors'),
        lambda r: r['hub'].update(filename='pytorch_model.bin'),
        lambda r: r['hub'].update(id='name'),
        lambda r: r.update(origin={'repository': 'http://x', 'sources': [{'url': 'https://x'}]}),
        lambda r: r.update(origin={'repository': 'https://x', 'sources': [{'url': 'file:///x'}]}),
        lambda r: r.update(origin={'repository': 'https://x', 'sources': []}),
        lambda r: r['metrics'][0].update(status='measured'),
        lambda r: r['metrics'][0].update(top1=101),
        lambda r: r['cfg'].update(file='x'),
    ],
)
def test_wrong_records(change: Callable[[Any], Any]) -> None:
    record = copy.deepcopy(PUBLISHED)
    change(record)
    assert not VALIDATOR.is_valid({**MANIFEST, 'checkpoints': [record]})
