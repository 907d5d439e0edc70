"""The runner on real images: it learns, repeats itself bit for bit, and goes on exactly where it was interrupted."""

import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.commands import ROOT
from tests.support.images import CONFIG, MODEL, group_norm_net, rows, short
from timm_attn.cli import main
from timm_attn.data.datasets import Subset
from timm_attn.data.fashion_mnist import BUNDLED, FashionMNIST
from timm_attn.training import checkpoint
from timm_attn.training.engine import Engine, NonFiniteLossError
from timm_attn.training.evaluate import confusion, evaluate
from timm_attn.training.loaders import eval_loader, take_batch, train_loader
from timm_attn.training.recipe import Recipe, load_recipe
from timm_attn.training.runner import train
from timm_attn.training.splits import open_split
from timm_attn.training.validate import validate


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
    files = {'last.pth.tar', 'last.safetensors', 'recipe.yaml', 'summary.csv'}
    assert {p.name for p in finished.iterdir()} == files | {'.lock'}
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
    loader = eval_loader(FashionMNIST('validation'), resolve_model_data_config(model))
    assert evaluate(model, loader)['top1'] == pytest.approx(float(row['top1']), abs=0.11)
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
    refused('last.pth.tar is a damaged archive')


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


def test_a_last_update_that_diverges_keeps_the_checkpoint_before(folders: Path, tmp_path: Path) -> None:
    """Its loss was finite: only the test after it tells."""
    output = tmp_path / 'out'
    with pytest.raises(NonFiniteLossError, match='validation loss is nan after epoch 1. .*last.pth.tar has its beg'):
        train(short(epochs=1, batch_size=100, lr=1e38), MODEL, folders, output)
    state = checkpoint.load(output / 'last.pth.tar')['state_dict']
    assert all(v.isfinite().all() for v in state.values()) and not (output / 'last.safetensors').exists()


def test_the_loss_of_a_stream_that_ends_early(monkeypatch: Any) -> None:
    loader = eval_loader(Subset(FashionMNIST('train'), range(40)), CONFIG, 20)
    loss = Engine(group_norm_net(), loader, short()).epoch(0)['loss']
    monkeypatch.setattr(type(loader), '__len__', lambda self: 4)  # what was expected of it
    assert Engine(group_norm_net(), loader, short()).epoch(0)['loss'] == pytest.approx(loss)


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
    dataset = Subset(FashionMNIST('train'), range(50))  # 20 + 20 + 10: the last update has fewer
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
    assert (end['fc.weight'] - start['fc.weight']).abs().max() > 0.1  # a new one: the folders' names are others
    assert changed == {'fc.weight', 'fc.bias'}
    header, *table = [line.split(',') for line in (tmp_path / 'out' / 'confusion.csv').read_text().splitlines()]
    counts = [[int(count) for count in row[1:]] for row in table]
    assert header[1:] == [row[0] for row in table] == sorted(p.name for p in (folders / 'train').iterdir())
    right, (row,) = sum(counts[i][i] for i in range(10)), rows(tmp_path / 'out')
    assert sum(map(sum, counts)) == 100 and right == float(row['top1'])


@pytest.mark.parametrize(
    'name', ['cifar_resnet20_simam', 'mobilenetv2_eca', 'cifar_preresnet20_cbam', 'cifar_densenet100_12_bam']
)
def test_no_norm_of_a_frozen_body_trains(name: str) -> None:
    loader = eval_loader(Subset(FashionMNIST('train'), range(4)), {**CONFIG, 'input_size': (3, 28, 28)})
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
    assert evaluate(Known(), [(labels, labels), (labels, torch.tensor([0, 1, 0, 0]))])['top1'] == 75.0
    with pytest.raises(ValueError, match='no images'):
        evaluate(Known(), [])


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


def test_confusion_is_drawn(small: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip('matplotlib')
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(short(epochs=1, batch_size=10))))
    command = ['train', '--config', str(tmp_path / 'r.yaml'), '--model', MODEL, '--data-dir', str(small)]
    assert main([*command, '--output', str(tmp_path / 'out'), '--confusion']) == 0
    assert (tmp_path / 'out' / 'confusion.png').read_bytes()[:4] == b'\x89PNG'
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / 'out' / 'last.safetensors')


def test_a_missing_matplotlib_is_said_before_the_training(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def missing() -> None:
        raise RuntimeError('Figures need matplotlib')

    monkeypatch.setattr('timm_attn.figures.require_matplotlib', missing)
    command = ['--config', 'finetune', '--model', MODEL, '--data-dir', str(small), '--output', str(tmp_path / 'out')]
    assert main(['train', *command, '--confusion']) == 1
    assert main(['sweep', *command, '--attn-kwarg', 'e_lambda', '--values', '1e-4']) == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('terminal', [False, True])
def test_a_progress_bar_is_for_a_terminal(terminal: bool, monkeypatch: Any) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, 'isatty', lambda: terminal, raising=False)
    monkeypatch.setattr(sys, 'stderr', stream)
    loader = eval_loader(Subset(FashionMNIST('train'), range(40)), CONFIG, 20)
    Engine(group_norm_net(), loader, short()).epoch(0)
    assert ('epoch 1/2' in stream.getvalue()) == terminal


def test_a_fault_of_ours_is_not_a_value_of_the_recipe(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def faulty(*_: Any) -> Any:
        raise KeyError('ours')

    train(short(epochs=1, batch_size=10), MODEL, small, tmp_path / 'first')
    for module in ('runner', 'validate'):
        monkeypatch.setattr(f'timm_attn.training.{module}.class_names', faulty)
    with pytest.raises(KeyError, match='ours'):
        train(short(), MODEL, small, tmp_path / 'out')
    with pytest.raises(KeyError, match='ours'):
        validate(MODEL, small, weights=tmp_path / 'first' / 'last.pth.tar')


def test_at_most_one_worker_per_core(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(vars(short(epochs=1, batch_size=10, workers=3))))
    command = ['train', '--config', str(tmp_path / 'r.yaml'), '--model', MODEL, '--data-dir', str(small)]

    def workers(run: str, cores: int, *options: str) -> int:
        monkeypatch.setattr('timm_attn.training.loaders.usable_cores', lambda: cores)
        assert main([*command, '--output', str(tmp_path / run), *options]) == 0
        return load_recipe(str(tmp_path / run / 'recipe.yaml')).workers

    assert workers('two', 2) == 2 and workers('set', 2, '--set', 'workers=3') == 3
    assert workers('two', 1, '--resume') == 2  # else its random numbers would be others
