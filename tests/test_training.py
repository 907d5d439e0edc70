"""The runner on real images: it learns, repeats itself bit for bit, and goes on exactly where it was interrupted."""

import argparse
import csv
import os
import random
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from images import CONFIG, MODEL, group_norm_net, short, write_folders
from safetensors.torch import load_file
from test_data import ROOT
from timm.data.scheduled_sampler import ScheduledTransformDataset
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_attn.cli import main
from timm_attn.data.fashion_mnist import BUNDLED, FashionMNIST
from timm_attn.reports.nets import load_net
from timm_attn.training import checkpoint, runner
from timm_attn.training.data import Part, UnreadableImageError, names_of, open_split, unreadable
from timm_attn.training.engine import Engine, NonFiniteLossError
from timm_attn.training.evaluate import confusion, top1, top1_on
from timm_attn.training.loaders import eval_loader, take_batch, train_loader
from timm_attn.training.recipe import Recipe, load_recipe
from timm_attn.training.runner import train
from timm_attn.training.validate import validate


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp('images'))


@pytest.fixture(scope='module')
def finished(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, never interrupted."""
    output = tmp_path_factory.mktemp('runs') / 'finished'
    train(short(), MODEL, folders, output)
    return output


def rows(output: Path) -> list[dict[str, str]]:
    with open(output / 'summary.csv', newline='') as f:
        return list(csv.DictReader(f))


def same(a: Path, b: Path) -> bool:
    """Whether two runs ended in the same weights, bit for bit, and measured the same."""
    ours, theirs = load_file(a / 'last.safetensors'), load_file(b / 'last.safetensors')
    untimed = [[{k: v for k, v in row.items() if k != 'seconds'} for row in rows(run)] for run in (a, b)]
    return (
        ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours) and untimed[0] == untimed[1]
    )


def test_training_learns_and_repeats(folders: Path, finished: Path, tmp_path: Path) -> None:
    table = rows(finished)
    assert [row['epoch'] for row in table] == ['1', '2']
    assert float(table[1]['loss']) < float(table[0]['loss']) and float(table[1]['train_top1']) > 10
    assert float(table[0]['lr']) == 0.05 and float(table[1]['lr']) == pytest.approx(0.025)
    assert {p.name for p in finished.iterdir()} == {'last.pth.tar', 'last.safetensors', 'recipe.yaml', 'summary.csv'}
    train(short(), MODEL, folders, tmp_path / 'again')
    assert same(finished, tmp_path / 'again')
    train(short(seed=4), MODEL, folders, tmp_path / 'other')
    assert not same(finished, tmp_path / 'other')


def test_the_bundled_recipe_on_tars(tmp_path: Path) -> None:
    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, BUNDLED, tmp_path / 'data'], check=True, capture_output=True)
    recipe = load_recipe('fashion_mnist', dict(epochs=1, batch_size=250, device='cpu'))
    weights = train(recipe, 'cifar_resnet20', tmp_path / 'data', tmp_path / 'out')
    model = timm.create_model('cifar_resnet20')
    model.load_state_dict(load_file(weights), strict=True)
    cfg = dict(input_size=(3, 28, 28), mean=recipe.mean, std=recipe.std, crop_pct=1.0)
    model.pretrained_cfg = model.default_cfg = {**model.default_cfg, **cfg}
    (row,) = rows(tmp_path / 'out')
    assert top1_on(model, FashionMNIST('validation')) == pytest.approx(float(row['top1']), abs=0.11)
    metrics = validate('cifar_resnet20', tmp_path / 'data', weights=tmp_path / 'out' / 'last.pth.tar')
    assert round(metrics['top1'], 2) == float(row['top1']) and metrics['images'] == 1000


ENGINE = dict(model_ema=True, model_ema_decay=0.9, grad_accum_steps=2, amp=True, amp_dtype='bfloat16', clip_grad=1.0)


@pytest.mark.parametrize('changes', [{}, dict(ENGINE, epochs=3, workers=1)], ids=['plain', 'all'])
def test_ctrl_c_and_resume(changes: dict[str, Any], folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    recipe, whole, broken = short(**changes), tmp_path / 'whole', tmp_path / 'broken'
    train(recipe, MODEL, folders, whole)
    step, seen = Engine._step, 0

    def interrupted(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 8:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, '_step', interrupted)
        with pytest.raises(
            RuntimeError, match=r'Interrupted\. .*last.pth.tar has the run up to the end of epoch 1; --resume'
        ):
            train(recipe, MODEL, folders, broken)
    assert not (broken / 'last.safetensors').exists()
    with pytest.raises(ValueError, match='already has a run: go on with --resume'):
        train(recipe, MODEL, folders, broken)
    train(recipe, MODEL, folders, broken, resume=True)
    assert same(whole, broken)
    if recipe.model_ema:
        averages = [load_file(run / 'last_ema.safetensors') for run in (whole, broken)]
        assert all(torch.equal(averages[0][k], averages[1][k]) for k in averages[0])
        assert any(not torch.equal(averages[0][k], v) for k, v in load_file(whole / 'last.safetensors').items())
        assert 'top1_ema' in rows(whole)[0]


def test_kill_9_and_resume(folders: Path, tmp_path: Path) -> None:
    recipe = short(epochs=4, workers=1)
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(recipe)))
    train(recipe, MODEL, folders, tmp_path / 'whole')
    killed = tmp_path / 'killed'
    command = [sys.executable, '-m', 'timm_attn.cli', 'train', '--config', str(tmp_path / 'r.yaml'), '--model', MODEL]
    process = subprocess.Popen(
        [*command, '--data-dir', str(folders), '--output', str(killed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    while not (killed / 'summary.csv').exists():  # until the first epoch's end
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.Random().uniform(0, 1.5))
    process.kill()
    process.wait()
    train(recipe, MODEL, folders, killed, resume=True)
    assert same(tmp_path / 'whole', killed)


def test_resume_of_something_else(folders: Path, finished: Path, tmp_path: Path) -> None:
    def put(state: dict[str, Any]) -> None:
        checkpoint.save(tmp_path / 'last.pth.tar', state)

    def refused(message: str, recipe: Recipe | None = None) -> None:
        with pytest.raises(ValueError, match=message):
            train(recipe or short(), MODEL, folders, tmp_path, resume=True)

    state = checkpoint.load(finished / 'last.pth.tar')
    put(state)
    refused(r'trained otherwise: batch_size \(20, now 10\), lr \(0.05, now 0.1\)', short(lr=0.1, batch_size=10))
    put({**state, 'arch': 'resnet18'})
    refused("is a checkpoint of 'resnet18', not of 'cifar_resnet20_simam'")
    put({**state, 'random': state['random'] * 2})
    refused('is of 2 processes, but there are 1 now')
    put({k: v for k, v in state.items() if k != 'random'})
    refused('not written by this runner')
    put({k: v for k, v in state.items() if k != 'state_dict'})
    refused('has no state_dict')
    (tmp_path / 'last.pth.tar').write_bytes((finished / 'last.pth.tar').read_bytes()[:5000])
    refused('cannot be read as a checkpoint')


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / 'last.pth.tar'
    checkpoint.save(path, dict(state_dict=torch.arange(3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # a file that grows further fails, as on a full disk
    try:
        with pytest.raises(
            RuntimeError, match=r'last.pth.tar \([\d,]+ bytes\) cannot be written: .*; the last one is kept'
        ):
            checkpoint.save(path, dict(state_dict=torch.zeros(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(checkpoint.load(path)['state_dict'], torch.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ['last.pth.tar']


def test_a_loss_that_is_no_number_stops_the_run(folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    forward, taken = timm.task.ClassificationTask.forward, []

    def poisoned(self: Any, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        taken.append(labels)
        result = forward(self, images, labels)
        return {**result, 'loss': result['loss'] * float('nan')} if len(taken) == 8 else result

    monkeypatch.setattr(timm.task.ClassificationTask, 'forward', poisoned)
    with pytest.raises(NonFiniteLossError, match='The loss is nan at step 3 of epoch 2') as caught:
        train(short(), MODEL, folders, tmp_path / 'out')
    text = str(caught.value)
    files = [Path(f) for f in text.partition('of the batch: ')[2].partition('. ')[0].split(', ')]
    assert [int(f.parent.name[0]) for f in files] == taken[-1].tolist()  # the very images, in the batch's order
    assert 'last.pth.tar has the run up to the end of epoch 1' in text
    assert checkpoint.load(tmp_path / 'out' / 'last.pth.tar')['epoch'] == 0


@pytest.mark.parametrize('changes', [{}, dict(workers=2), dict(train_img_sizes=[16], train_batches_per_epoch=7)])
def test_the_batches_are_known(changes: dict[str, Any], folders: Path) -> None:
    recipe = short(**changes)
    loader = train_loader(open_split(recipe, folders, 'train'), CONFIG, recipe)
    assert len(loader) == (recipe.train_batches_per_epoch or 5)
    samples = open_split(recipe, folders, 'train').reader.samples
    for _ in range(2):
        for _, labels in loader:
            batch = take_batch(loader)
            assert batch is not None and [samples[i][1] for i in batch] == labels.tolist()


def after_an_epoch(loader: Any, recipe: Recipe) -> dict[str, Tensor]:
    engine = Engine(group_norm_net(), loader, recipe)
    engine.epoch(0)
    return engine.model.state_dict()


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    dataset = Part(FashionMNIST('train'), range(50))  # 20 + 20 + 10: the last update has fewer
    whole = after_an_epoch(eval_loader(dataset, CONFIG, 20), short(grad_accum_steps=1))
    parts = after_an_epoch(eval_loader(dataset, CONFIG, 10), short(grad_accum_steps=2))
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-4, atol=1e-6)


def test_the_head_alone(folders: Path, tmp_path: Path) -> None:
    train(short(epochs=1, pretrained=True), MODEL, folders, tmp_path / 'out', head_only=True, confusion_matrix=True)
    start, end = (
        timm.create_model(MODEL, pretrained=True).state_dict(),
        load_file(tmp_path / 'out' / 'last.safetensors'),
    )
    changed = {k for k in start if not torch.equal(start[k], end[k])}
    assert changed == {'fc.weight', 'fc.bias'}
    assert (tmp_path / 'out' / 'confusion.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.parametrize(
    'name', ['cifar_resnet20_simam', 'mobilenetv2_eca', 'cifar_preresnet20_cbam', 'cifar_densenet100_12_bam']
)
def test_no_norm_of_a_frozen_body_trains(name: str) -> None:
    loader = eval_loader(Part(FashionMNIST('train'), range(4)), {**CONFIG, 'input_size': (3, 28, 28)})
    model = timm.create_model(name)
    Engine(model, loader, short(), head_only=True)._train_mode()
    assert model.training and not [n for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]


def test_confusion() -> None:
    labels = torch.tensor([0, 1, 2, 2])

    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.long(), 3).float()

    counts = confusion(Known(), [(torch.tensor([0, 0, 2, 1]), labels)], 3)
    assert counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]


def test_top1_of_known_answers() -> None:
    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.long(), 4).float()

    labels = torch.tensor([0, 1, 2, 3])
    assert top1(Known(), [(labels, labels), (labels, torch.tensor([0, 1, 0, 0]))]) == 75.0
    with pytest.raises(ValueError, match='no images'):
        top1(Known(), [])


def test_compile_and_channels_last(folders: Path, tmp_path: Path) -> None:
    plain = short(epochs=1, channels_last=True)
    train(plain, MODEL, folders, tmp_path / 'plain')
    train(short(epochs=1, channels_last=True, torchcompile='aot_eager'), MODEL, folders, tmp_path / 'compiled')
    ours, theirs = (load_file(tmp_path / run / 'last.safetensors') for run in ('plain', 'compiled'))
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-4)


def test_tensorboard(folders: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'torch.utils.tensorboard', None)
        with pytest.raises(RuntimeError, match=r"not installed: pip install 'timm-attn\[tensorboard\]'"):
            train(short(), MODEL, folders, tmp_path / 'without', tensorboard=True)
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(short(), MODEL, folders, tmp_path / 'with', tensorboard=True)
    events = EventAccumulator(str(tmp_path / 'with' / 'tensorboard'))
    events.Reload()
    assert [e.step for e in events.Scalars('top1')] == [1, 2]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    yield write_folders(tmp_path / 'small', 20, classes=2)


def refused(message: str, folder: Path, output: Path, recipe: Recipe | None = None) -> None:
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError), match=message):
        train(recipe or short(), MODEL, folder, output)
    assert not output.exists()  # nothing half-written


def test_folders_that_cannot_be_trained_on(small: Path, tmp_path: Path) -> None:
    output = tmp_path / 'out'
    refused('There is no folder .*gone of images', tmp_path / 'gone', output)
    refused('2 classes: 0_t-shirt, 1_trouser', small, output, short(num_classes=10))
    refused('20 training images do not fill one batch of 50', small, output, short(batch_size=50))
    (small / 'validation' / '1_trouser').rename(small / 'validation' / 'trousers')
    refused(r"classes of 'train' and 'validation' differ: \['1_trouser', 'trousers'\]", small, output)
    (small / 'validation').rename(small / 'elsewhere')
    refused("must have a folder or tar for each of 'train' and 'validation'", small, output)
    (small / 'elsewhere').rename(small / 'validation')
    for file in (small / 'train' / '1_trouser').iterdir():
        file.unlink()
    refused(r'train has images of one class only \(0_t-shirt\)', small, output)
    for file in (small / 'train' / '0_t-shirt').iterdir():
        file.unlink()
    refused('Found 0 images', small, output)


def test_an_image_costs_the_same_in_a_large_set(small: Path) -> None:
    images = open_split(short(), small, 'train')
    images.reader.samples *= 10_000
    images.unreadable = torch.zeros(len(images), dtype=torch.uint8)
    tracemalloc.start()
    images[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(images) > 100_000 and peak < 500_000  # bytes


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_images(workers: int, small: Path, tmp_path: Path) -> None:
    broken = sorted((small / 'train' / '1_trouser').iterdir())[:2]
    broken[0].write_text('not an image')
    broken[1].write_bytes(broken[1].read_bytes()[:100])
    recipe = short(workers=workers, batch_size=10, epochs=1)
    with pytest.raises(
        UnreadableImageError, match=r'^\S+1_trouser/\d+.png cannot be read as an image .*--unreadable skip'
    ):
        train(recipe, MODEL, small, tmp_path / 'stopped')
    train(recipe, MODEL, small, tmp_path / 'skipped', skip_unreadable=True)
    assert rows(tmp_path / 'skipped')[0]['unreadable'] == '2'
    images = open_split(recipe, small, 'train', training=True, skip_unreadable=True)
    assert unreadable(images) == 0 and images[len(images) - 1][1] == 1
    place = images.reader.samples.index((str(broken[0]), 1))
    assert images[place][1] == 1 and unreadable(images) == 2  # both have another in their place
    part = Part(images, [place, 0])
    assert part[0][1] == 0 and unreadable(part) == 1  # one of the part
    for file in small.glob('*/*/*'):
        file.write_text('broken')
    with pytest.raises(UnreadableImageError, match='Not one of the 20 files'):
        open_split(recipe, small, 'train', training=True, skip_unreadable=True)[0]
    with pytest.raises(ValueError, match='no images to evaluate'):
        validate(MODEL, small, weights=tmp_path / 'skipped' / 'last.pth.tar', skip_unreadable=True)


def test_unreadable_images_count_for_nothing_in_a_test(small: Path, tmp_path: Path) -> None:
    """Another in its place would count twice, and may be of another class."""
    weights = train(short(epochs=1), MODEL, small, tmp_path / 'out')
    whole = validate(MODEL, small, weights=weights)
    broken = sorted((small / 'validation' / '0_t-shirt').iterdir())
    for file in broken:
        file.write_text('broken')
    found = validate(MODEL, small, weights=weights, skip_unreadable=True)
    for file in broken:
        file.unlink()
    (small / 'validation' / '0_t-shirt' / 'readable.png').write_bytes(next(small.glob('train/0*/*')).read_bytes())
    assert found['unreadable'] == len(broken) and found['images'] == 20 - len(broken)
    right = validate(MODEL, small, weights=weights)  # with one more image
    assert abs(right['top1'] * right['images'] - found['top1'] * found['images']) in (
        pytest.approx(0, abs=1e-6),
        pytest.approx(100),
    )
    assert whole['images'] == 20 and whole['loss'] != found['loss']


OPTIONS = dict(attn_kwargs=dict(e_lambda=0.1))


@pytest.fixture(scope='module')
def with_options(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose options no tensor shows."""
    output = tmp_path_factory.mktemp('runs') / 'options'
    train(short(epochs=1, model_kwargs=OPTIONS, model_ema=True, model_ema_decay=0.5), MODEL, folders, output)
    return output


@pytest.mark.parametrize('recipe', [None, short()])
@pytest.mark.parametrize('name', ['last.pth.tar', 'last.safetensors', 'theirs.pth.tar'])
def test_a_file_says_what_its_model_is(
    name: str, recipe: Recipe | None, folders: Path, with_options: Path, tmp_path: Path
) -> None:
    state = checkpoint.load(with_options / 'last.pth.tar')
    state['args'] = argparse.Namespace(
        model_kwargs=OPTIONS, **{k: vars(short())[k] for k in ('input_size', 'crop_pct')}
    )
    torch.save({k: state[k] for k in ('state_dict', 'args', 'arch')}, tmp_path / 'theirs.pth.tar')
    file = (tmp_path if name.startswith('theirs') else with_options) / name
    found = validate(MODEL, folders, weights=file, recipe=recipe, ema=False)
    assert found['loss'] == pytest.approx(float(rows(with_options)[-1]['val_loss']), rel=1e-5)
    assert load_net(MODEL, file).model.layer1[0].conv_attn.e_lambda == 0.1
    assert load_net(MODEL, file).data_config['input_size'] == (3, 16, 16)
    with pytest.raises(ValueError, match=r"trained with attn_kwargs \{'e_lambda': 0.1\}, but got \{'e_lambda': 0.2\}"):
        validate(MODEL, folders, weights=file, recipe=short(model_kwargs=dict(attn_kwargs=dict(e_lambda=0.2))))


def test_the_averaged_weights_are_measured(folders: Path, with_options: Path) -> None:
    measured = [
        validate(MODEL, folders, weights=with_options / name)['loss']
        for name in ('last.pth.tar', 'last_ema.safetensors', 'last.safetensors')
    ]
    assert measured[0] == measured[1] != measured[2]


def test_changes_of_a_checkpoint_s_recipe(folders: Path, finished: Path, capsys: Any) -> None:
    common = ['validate', '--model', MODEL, '--data-dir', str(folders), '--checkpoint', str(finished / 'last.pth.tar')]
    assert main([*common, '--set', 'crop_pct=0.5', '--set', 'hflip=0.0']) == 0
    halved = capsys.readouterr().out
    assert main(common) == 0 and capsys.readouterr().out != halved
    assert main([*common, '--set', 'no_such=1']) == 1 and 'no_such' in capsys.readouterr().err
    assert (
        main([*common, '--set', 'crop_pct=[']) == 1 and "value in YAML, but got 'crop_pct=['" in capsys.readouterr().err
    )
    assert main([*common, '--set', 'device_modules=[no.such]']) == 1
    assert "device module 'no.such' cannot be imported" in capsys.readouterr().err


def test_tars_without_being_named(tmp_path: Path) -> None:
    script = ROOT / 'scripts' / 'fashion_mnist_to_tar.py'
    subprocess.run([sys.executable, script, BUNDLED, tmp_path], check=True, capture_output=True)
    assert len(open_split(short(), tmp_path, 'train')) == len(open_split(short(), tmp_path, 'validation')) == 1000


@pytest.mark.parametrize('wrap', [lambda d: Part(d, range(10, 20)), lambda d: ScheduledTransformDataset(d, [str])])
def test_the_images_of_a_loss_have_names(wrap: Any, folders: Path) -> None:
    images = open_split(short(), folders, 'train')
    start = 10 if isinstance(wrap(images), Part) else 0
    assert names_of(wrap(images), [2, 3]) == [str(images.filename(start + i, absolute=True)) for i in (2, 3)]
    assert names_of(wrap(FashionMNIST('train')), [2, 3]) == [f'number {start + 2}', f'number {start + 3}']


def test_validate_reads_checkpoints_of_train_py(folders: Path, finished: Path, tmp_path: Path) -> None:
    """They hold the script's arguments and numpy's numbers beside the weights."""
    state = load_file(finished / 'last.safetensors')
    extra = {'args': argparse.Namespace(lr=0.1), 'metric': np.float64(50), 'arch': MODEL}
    torch.save({'state_dict': state, **extra}, tmp_path / 'model_best.pth.tar')
    theirs, ours = (
        validate(MODEL, folders, weights=path, recipe=short())
        for path in (tmp_path / 'model_best.pth.tar', finished / 'last.safetensors')
    )
    assert theirs == ours


def test_validate_refuses(small: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f'{MODEL} has 10 classes, but .*small has 2'):
        validate(MODEL, small)
    with pytest.raises(ValueError, match='last.safetensors has 10 classes, but .* has 2'):
        validate(MODEL, small, weights=finished / 'last.safetensors')
    with pytest.raises(FileNotFoundError, match='no checkpoint .*gone'):
        validate(MODEL, small, weights=tmp_path / 'gone.safetensors')
    with pytest.raises(ValueError, match="is a checkpoint of 'cifar_resnet20_simam', not of 'cifar_resnet20_se'"):
        validate('cifar_resnet20_se', small, weights=finished / 'last.safetensors')


def test_what_is_held_out_is_not_trained_on(folders: Path) -> None:
    trained, held = runner.data.held_out(short(), folders, 30)
    assert len(trained) == 70 and len(held) == 30
    files = [set(names_of(part, range(len(part)))) for part in (trained, held)]
    assert not files[0] & files[1] and len(files[0] | files[1]) == 100
    with pytest.raises(ValueError, match='100 images cannot be held out of 100'):
        runner.data.held_out(short(), folders, 100)
