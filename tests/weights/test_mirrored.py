"""Files of others at plain addresses with a known SHA-1: fetched once, verified, converted, and what goes wrong."""

import errno
import hashlib
import importlib
import io
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from torch import Tensor

from tests.support.hub_server import LocalHub
from tests.support.records import registered
from timm_attn import weights
from timm_attn.weights import fetch, find_checkpoint, importing, verified_path
from timm_attn.weights.importing import import_checkpoint
from timm_attn.weights.inventory import is_present, path_of, remove
from timm_attn.weights.manifest import Checkpoint
from timm_attn.weights.store import imported, record_path, store_dir, stored_path

NAME, TAG, REPO, FILE = 'cifar_preresnet20_se', 'mine', 'org/toy', 'toy.pth.zip'


@pytest.fixture(autouse=True)
def timm_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cfg has an address so that timm lists it; timm's own downloads would check nothing."""
    for name in ('load_state_dict_from_url', 'load_state_dict_from_hf', 'download_cached_file'):
        monkeypatch.setattr(f'timm.models._builder.{name}', lambda *args, **kwargs: pytest.fail('timm fetches it'))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """Any file server: it redirects to another host, as GitHub does for a file of a release."""
    with LocalHub() as hub:
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr(constants, 'HF_HUB_DOWNLOAD_TIMEOUT', 1)
        monkeypatch.setenv('TIMM_ATTN_HOME', str(tmp_path / 'store'))
        yield hub


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


@pytest.fixture
def checkpoint(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpoint]:
    record = record_of(at_address(hub, zipped(PTH, packed=zipfile.ZIP_DEFLATED), PTH))
    with registered(monkeypatch, record):
        yield record


def model(**options: Any) -> Any:
    return timm.create_model(f'{NAME}.{TAG}', pretrained=True, **options)


def only_kept_files() -> bool:
    return all(p.suffix in ('.safetensors', '.json') for p in store_dir().glob('*'))


def test_fetched_once_and_verified_every_time(
    checkpoint: Checkpoint, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {NAME, f'{NAME}.{TAG}'} <= set(timm.list_models(pretrained=True))
    first, asked = model(), len(hub.requests)
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in state_dict().items())
    note, path = imported(checkpoint), stored_path(checkpoint)
    assert path is not None and path.suffix == '.safetensors' and note['sha256'] == _sha256(path.read_bytes())
    assert (note['source'], note['source_sha256']) == (checkpoint.origin['url'], _sha256(PTH)) and only_kept_files()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    for again in (model(), timm.create_model(NAME, pretrained=True), getattr(timm_zoo(), NAME)(pretrained=True)):
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    with pytest.raises(RuntimeError, match='the file is damaged, and HF_HUB_OFFLINE is set: unset it once, or downl'):
        model()
    assert len(hub.requests) == asked
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    model()
    assert path_of(NAME) == path and _sha256(path.read_bytes()) == note['sha256']
    assert remove(NAME) == [path] and not list(store_dir().iterdir())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def timm_zoo() -> Any:
    return importlib.import_module('timm_attn.zoo')


def test_variants_of_a_call(checkpoint: Checkpoint, hub: LocalHub, tmp_path: Path) -> None:
    saved_net = state_dict()
    wide = model(num_classes=3, cache_dir=tmp_path / 'elsewhere')
    assert wide.fc.out_features == 3 and torch.equal(wide.conv1.weight, saved_net['conv1.weight'])
    assert is_present(checkpoint, tmp_path / 'elsewhere') and not is_present(checkpoint)
    gray = model(features_only=True, in_chans=1)
    assert torch.equal(gray.layer1[0].conv1.weight, saved_net['layer1.0.conv1.weight'])
    overlaid = model(pretrained_cfg_overlay=dict(mean=(0.5,) * 3, crop_pct=0.5))
    assert (overlaid.pretrained_cfg['mean'], overlaid.pretrained_cfg['crop_pct']) == ((0.5,) * 3, 0.5)
    cfg = timm.get_pretrained_cfg(f'{NAME}.{TAG}')
    assert cfg is not None and cfg.url == checkpoint.origin['url']
    by_cfg = timm.create_model(NAME, pretrained=True, pretrained_cfg=cfg)
    by_dict = timm.create_model(NAME, pretrained=True, pretrained_cfg=vars(cfg))
    assert torch.equal(by_cfg.conv1.weight, by_dict.conv1.weight)
    with pytest.raises(ValueError, match='trained with bias=True'):
        model(attn_kwargs=dict(bias=False))


@pytest.mark.parametrize('checkpoint', weights.checkpoints(), ids=lambda c: c.full_name)
def test_timm_is_handed_a_file_whatever_the_record(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr('timm_attn.weights.resolve.verified_path', lambda *args: tmp_path / 'x.safetensors')
    cfg = timm.get_pretrained_cfg(checkpoint.full_name)
    for kwargs in ({'pretrained_cfg': checkpoint.tag}, {'pretrained_cfg': cfg}, {'pretrained_cfg': vars(cfg)}):
        chosen = weights.chosen_checkpoint(checkpoint.name, kwargs)
        assert chosen == checkpoint
        overlay = weights.builder_arguments(chosen, kwargs)['pretrained_cfg_overlay']
        assert overlay == dict(
            state_dict=None,
            url=None,
            hf_hub_id=None,
            hf_hub_filename=None,
            source='',
            file=str(tmp_path / 'x.safetensors'),
        )


HTML = b'<!DOCTYPE html><html><body>Please sign in.</body></html>'
NOT_FINITE = saved({k: v * float('nan') if v.is_floating_point() else v for k, v in state_dict().items()})


BOMB = bytes(50_000_000)
OTHER = saved({'x': torch.ones(1)})


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ('touch /tmp/timm_attn_was_here',)


EVIL = saved({'state_dict': state_dict(), 'extra': Evil()})
# (the bytes at the address, the .pth whose SHA-1 the record has, what is said)
CONTENTS: dict[str, tuple[bytes, bytes, str]] = {
    'another digest': (zipped(PTH + b'x'), PTH, r'its SHA-1 is \w{40} instead of \w{40}\.$'),
    'two members': (zipped(b'x', 'a.pth', 'b.pth'), PTH, 'must hold one checkpoint, but holds 2 files'),
    'a path': (zipped(PTH, '../a.pth'), PTH, r"holds '../a.pth', but must hold one file outside of any folder"),
    'an absolute path': (zipped(PTH, '/a.pth'), PTH, 'but must hold one file outside of any folder'),
    'cut': (zipped(PTH)[:-2000], PTH, 'its SHA-1 is'),
    'bomb': (zipped(BOMB, packed=zipfile.ZIP_DEFLATED), BOMB, 'unpacks to 50,000,000 bytes, more than the 1,3'),
    'too large': (bytes(2_000_000), bytes(2_000_000), 'it has more than the 1,3.* bytes expected'),
    'a page': (HTML, PTH, 'its SHA-1 is'),
    'a page with that digest': (zipped(HTML), HTML, 'is an HTML page, no checkpoint'),
    'code': (zipped(EVIL), EVIL, 'holds more than tensors and plain values; nothing was run'),
    'not finite': (zipped(NOT_FINITE), NOT_FINITE, 'has values that are not finite'),
    'another net': (
        zipped(saved({'x': torch.ones(1)})),
        saved({'x': torch.ones(1)}),
        'it has keys that the model lacks',
    ),
}


@pytest.mark.parametrize('what', CONTENTS)
def test_files_that_are_not_the_checkpoint(what: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    served, pth, message = CONTENTS[what]
    record = record_of(at_address(hub, served, pth))
    with registered(monkeypatch, record):
        with pytest.raises(RuntimeError, match=message) as error:
            model()
    assert f'{NAME}.{TAG} from {record.origin["url"]} was not kept: ' in str(error.value)
    assert str(store_dir()) not in str(error.value) and str(error.value).count('\n') == 0
    assert not list(store_dir().iterdir()) and not Path('/tmp/timm_attn_was_here').exists()


@pytest.mark.parametrize(
    'fault, message',
    [
        ('404', 'HTTP 404'),
        ('500', 'HTTP 500, Internal Server Error'),
        ('truncated', r'was not kept: the connection ended after [\d,]+ of [\d,]+ bytes'),
        ('endless', r'was not kept: it has more than the 1,3[\d,]+ bytes expected'),
        ('flipped', r'was not kept: .*(damaged archive|SHA-1)'),
        ('html', 'was not kept: the server sent an HTML page instead'),
        ('slow', 'timed out'),
        ('reset', 'reset'),
        ('file_redirect', "'file:///etc/passwd' is not allowed"),
    ],
)
def test_faults_of_the_server(fault: str, message: str, checkpoint: Checkpoint, hub: LocalHub) -> None:
    hub.fail(REPO, FILE, f'once:{fault}')
    with pytest.raises(RuntimeError, match=message) as error:
        model()
    assert len(str(error.value).splitlines()) == 1 and f'{NAME}.{TAG}' in str(error.value)
    assert not list(store_dir().iterdir())
    assert model() is not None  # a retry starts clean


def test_offline_and_verified_only(
    checkpoint: Checkpoint, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='are not here, and HF_HUB_OFFLINE is set: unset it once, or download http'):
        model()
    assert time.monotonic() - start < 1 and not hub.requests
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setenv('TIMM_ATTN_VERIFIED_ONLY', '1')
    assert model() is not None and not caplog.records


@pytest.mark.parametrize('way', ['silent', 'lookup'])
def test_a_dead_network_is_one_sentence_within_seconds(
    way: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and says nothing, and a name's lookup that never ends."""
    assert fetch.ANSWER_S < 10
    monkeypatch.setattr(fetch, 'ANSWER_S', 0.5)
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen(1)
        if way == 'lookup':
            monkeypatch.setattr(socket, 'getaddrinfo', lambda *args: time.sleep(5))
        url = f'http://localhost:{silent.getsockname()[1]}/x.zip'
        start = time.monotonic()
        with pytest.raises(
            RuntimeError, match=f'could not be fetched from {url}: (timed out|no answer within 0.5 sec)'
        ):
            verified_path(record_of({'repository': 'https://example.org', 'url': url, 'sha1': 'a' * 40}))
    assert time.monotonic() - start < 2


def _fail(code: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    'call, code, message',
    [
        ('tempfile.mkdtemp', errno.EROFS, 'cannot be written to .*store .Read-only.*TIMM_ATTN_HOME'),
        (
            'timm_attn.weights.fetch.tqdm.update',
            errno.ENOSPC,
            'cannot be written to .*store/.* .No space.*TIMM_ATTN_HOME',
        ),
        ('shutil.copyfileobj', errno.ENOSPC, 'cannot be unpacked to .*store/.* .No space'),
        (
            'timm_attn.weights.importing.replacing',
            errno.ENOSPC,
            'cannot be written to .*store .No space.*TIMM_ATTN_HOME',
        ),
    ],
)
def test_a_full_disk_and_a_read_only_store(
    call: str, code: int, message: str, checkpoint: Checkpoint, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(call, _fail(code))
        with pytest.raises(OSError, match=message) as error:
            model()
        assert error.value.errno == code
    assert not list(store_dir().iterdir())
    if call == 'tempfile.mkdtemp':
        assert not hub.requests, 'what cannot be kept is not fetched'
    model()
    with monkeypatch.context() as patch:  # a warm store is only read
        for name in ('tempfile.mkdtemp', 'tempfile.mkstemp', 'os.replace'):
            patch.setattr(name, _fail(errno.EROFS))
        model()


def _in_a_child(run: Callable[[], object]) -> int:
    """Runs a function in a copy of this process; how that process ended."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    return child


def test_a_killed_process_leaves_nothing_that_counts(
    checkpoint: Checkpoint, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        os.kill(os.getpid(), 9)

    with monkeypatch.context() as patch:
        patch.setattr(importing, 'read_checkpoint', killed)
        child = _in_a_child(lambda: verified_path(checkpoint))
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    (left,) = store_dir().iterdir()
    assert left.is_dir() and any(left.rglob('*.pth')) and not is_present(checkpoint)
    model()
    assert left.exists() and is_present(checkpoint)  # it may be another's, still at work
    for path in (left, *left.rglob('*')):
        os.utime(path, (time.time() - 4000,) * 2)
    remove(NAME)
    assert not list(store_dir().iterdir())


def test_two_processes_at_once(checkpoint: Checkpoint) -> None:
    children = [_in_a_child(lambda: (verified_path(checkpoint), os._exit(0))) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    path = stored_path(checkpoint)
    assert path is not None and sorted(store_dir().iterdir()) == sorted([path, record_path(checkpoint)])
    assert model() is not None


def test_several_threads_at_once(checkpoint: Checkpoint) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(verified_path(checkpoint))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [stored_path(checkpoint)] * 3 and only_kept_files()


def test_a_file_that_the_user_brings_has_the_digest_too(checkpoint: Checkpoint, tmp_path: Path, hub: LocalHub) -> None:
    for file, content in (('x.pth', PTH), ('x.zip', zipped(PTH))):
        (tmp_path / file).write_bytes(content)
        assert import_checkpoint(NAME, tmp_path / file) == stored_path(checkpoint)
        remove(NAME)
    (tmp_path / 'x.pth').write_bytes(saved({k: v + 1 for k, v in state_dict().items()}))
    with pytest.raises(ValueError, match=f'x.pth is not {NAME}.{TAG}: its SHA-1 is'):
        import_checkpoint(NAME, tmp_path / 'x.pth')
    assert not hub.requests and not is_present(checkpoint)


# A record for each layout of pytorchcv, and the net there that it is of.
LAYOUTS = {
    'cifar_resnet20_se.osmr_cifar100': ('seresnet_cifar', 'seresnet20_cifar100'),
    'cifar_densenet100_12.osmr_cifar10': ('densenet_cifar', 'densenet100_k12_bc_cifar10'),
    'squeezenet1_1.osmr_in1k': ('squeezenet', 'squeezenet_v1_1'),
    'resnet50_cbam.osmr_in1k': ('cbamresnet', 'cbam_resnet50'),
    'resnet50_bam_mul.authors_in1k': ('bamresnet', 'bam_resnet50'),
    'cifar_wrn28_10.osmr_svhn': ('wrn_cifar', 'wrn28_10_svhn'),
}


@pytest.mark.parametrize('full_name', LAYOUTS)
def test_every_layout_from_its_archive_to_a_net(full_name: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('pytorchcv', reason='the package pytorchcv of the extra `test` is not installed')
    module, net = LAYOUTS[full_name]
    theirs = getattr(importlib.import_module(f'pytorchcv.models.{module}'), net)()
    content = saved(theirs.state_dict())
    known = find_checkpoint(*full_name.split('.'))
    record = replace(known, origin=at_address(hub, zipped(content), content))
    with registered(monkeypatch, record):
        ours = timm.create_model(full_name, pretrained=True).eval()
    size = ours.default_cfg['input_size']
    assert size == known.cfg['input_size'] and ours.num_classes == known.cfg['num_classes']
    images = torch.randn(1, *size)
    with torch.inference_mode():
        found, expected = ours(images), theirs.eval()(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
