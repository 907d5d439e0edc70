"""weights_manifest.json against its schema, and the schema against records that are wrong."""

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import timm

from timm_attn.weights import checkpoints
from timm_attn.weights.importing import most_bytes
from timm_attn.weights.manifest import HUB_PATTERNS, LICENSE, ORIGIN_PATTERNS, PACKAGE, PATTERNS, manifest_path

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
    assert set(SCHEMA['$defs']['origin']['properties']) == set(ORIGIN_PATTERNS)


@pytest.mark.parametrize('checkpoint', checkpoints(), ids=lambda c: c.full_name)
def test_a_record_fits_its_model(checkpoint: Any) -> None:
    model = timm.create_model(checkpoint.full_name, device='meta', **checkpoint.model_args)
    num_params = sum(p.numel() for p in model.parameters())
    kernels = 'eca' in checkpoint.name and checkpoint.kind == 'upstream'  # the authors' kernel sizes are others
    assert num_params == checkpoint.num_params or (kernels and abs(num_params - checkpoint.num_params) < 50)
    assert model.num_classes == checkpoint.cfg['num_classes']
    if checkpoint.is_converted:  # float32 values, and what an archive says of each tensor
        least = sum(4 * value.numel() + 400 for value in model.state_dict().values())
        assert least < most_bytes(checkpoint) == int(checkpoint.row.bytes_per_parameter * checkpoint.num_params)


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
        lambda r: r.update(origin={'repository': 'http://x'}),
        lambda r: r.update(origin={'repository': 'https://x', 'url': 'file:///x'}),
        lambda r: r.update(origin={'repository': 'https://x', 'url': 'https://x', 'sha1': 'a'}),
        lambda r: r['hub'].pop('revision'),
        lambda r: r['metrics'][0].update(status='measured'),
        lambda r: r['metrics'][0].update(top1=101),
        lambda r: r['cfg'].update(file='x'),
    ],
)
def test_wrong_records(change: Callable[[Any], Any]) -> None:
    record = copy.deepcopy(PUBLISHED)
    change(record)
    assert not VALIDATOR.is_valid({**MANIFEST, 'checkpoints': [record]})


ORIGIN = {'repository': 'https://x', 'url': 'https://x/y'}
MIRRORED = {
    **{key: PUBLISHED[key] for key in ('name', 'tag', 'num_params', 'license', 'cfg', 'metrics')},
    'kind': 'mirrored',
    'origin': {**ORIGIN, 'sha1': 'a' * 40},
}


@pytest.mark.parametrize(
    'change, valid',
    [
        ({}, True),
        ({'origin': ORIGIN}, False),
        ({'size': 1}, False),
        ({'kind': 'upstream'}, False),
        ({'kind': 'upstream', 'origin': ORIGIN}, True),
        ({'kind': 'timm', 'origin': {'repository': 'https://x'}}, False),
        ({'kind': 'timm', 'origin': {'repository': 'https://x'}, 'hub': {'id': 'a/b', 'filename': 'x.bin'}}, False),
        ({'kind': 'timm', 'origin': {'repository': 'https://x'}, 'hub': PUBLISHED['hub']}, True),
    ],
)
def test_records_of_files_that_are_converted(change: dict[str, Any], valid: bool) -> None:
    assert VALIDATOR.is_valid({**MANIFEST, 'checkpoints': [{**MIRRORED, **change}]}) is valid
