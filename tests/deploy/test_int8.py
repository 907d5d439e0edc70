"""INT8 of a trained net: what is written, what is said of it, and what is refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from timm_attn.cli import main
from timm_attn.deploy import int8
from timm_attn.training import checkpoint

pytest.importorskip('onnxruntime', reason="onnxruntime is not installed: pip install 'timm-attn[deploy]'")
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::torch.jit.TracerWarning')


def test_a_trained_net(finished: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / 'net.onnx'
    assert main(['int8', str(finished / 'last.pth.tar'), str(folders), str(output), '--images', '30']) == 0
    accuracy, agreement, file = capsys.readouterr().out.splitlines()
    before, after = (float(accuracy.split()[at]) for at in (1, 5))
    assert accuracy == f'top-1 {before:.2f} % in float, {after:.2f} % in INT8, on 100 images'
    assert before - after <= 1 and float(agreement.split()[4]) > 90 and float(agreement.split()[6]) > 20
    assert file == str(output)
    assert output.stat().st_size < 0.6 * (finished / 'last.safetensors').stat().st_size


def test_tars_of_class_folders(finished: Path, folders: Path, tmp_path: Path) -> None:
    for split in ('train', 'validation'):
        shutil.make_archive(str(tmp_path / split), 'tar', folders / split)
    output = tmp_path / 'net.onnx'
    assert main(['int8', str(finished / 'last.pth.tar'), str(tmp_path), str(output), '--images', '30']) == 0
    assert output.exists()


class Split(nn.Module):
    """The mean of each channel as its logit; a tiny one beside a huge one is lost in 8 bits."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.fc = nn.Conv2d(3, 3, 1, bias=False)
        self.fc.weight.data = torch.diag(torch.tensor(weights))[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).mean((2, 3))


def images_of(scales: tuple[float, ...], count: int = 60) -> Tensor:
    """Images whose only channel that is not zero is that of their class."""
    x = torch.zeros(count, 3, 4, 4)
    for i in range(count):
        x[i, i % 3] = scales[i % 3]
    return x


def quantize(scales: tuple[float, ...], output: Path, **options: Any) -> int8.Int8:
    x = images_of(scales)
    return int8.quantize(Split([1.0, 1.0, 1.0]).eval(), [x], [(x, torch.arange(60) % 3)], output, **options)


def test_figures(tmp_path: Path) -> None:
    found = quantize((1.0, 1.0, 1.0), tmp_path / 'net.onnx')
    assert found[:4] == (60, 100.0, 100.0, 100.0) and found.sqnr > 30 and (tmp_path / 'net.onnx').exists()


@pytest.mark.parametrize(
    ('weight', 'calibrated', 'tested', 'message'),
    [
        (1.0, 0, 1, 'The ranges of the maps need at least one batch of images'),
        (1.0, 1, 0, 'The accuracy needs at least one batch of images'),
        (float('nan'), 1, 1, 'onnxruntime finds no ranges of the maps, which may not be finite'),
        (1e38, 1, 1, 'The net has logits that are not finite'),
    ],
)
def test_what_has_no_figures_is_refused(
    weight: float, calibrated: int, tested: int, message: str, tmp_path: Path
) -> None:
    net, x = Split([weight] * 3).eval(), images_of((100.0, 100.0, 100.0))
    with pytest.raises(ValueError, match=message):
        int8.quantize(net, [x] * calibrated, [(x, torch.arange(60) % 3)] * tested, tmp_path / 'net.onnx', 100)
    assert not list(tmp_path.iterdir())


def test_a_net_of_zeros_has_figures(tmp_path: Path) -> None:
    x = images_of((1.0, 1.0, 1.0))
    found = int8.quantize(Split([0.0] * 3).eval(), [x], [(x, torch.arange(60) % 3)], tmp_path / 'net.onnx')
    assert (found.agreement, found.sqnr) == (100, 0)


def test_nothing_is_written_that_lost_too_much(tmp_path: Path) -> None:
    """The last class lies below half a step of the common range, so its maps become zeros."""
    output = tmp_path / 'net.onnx'
    message = r'INT8 takes the top-1 from 100.00 to 66.67 %, more than the 1 points that it may lose, so .* not written'
    with pytest.raises(ValueError, match=message):
        quantize((1.0, 1.0, 1e-4), output)
    assert not list(tmp_path.iterdir())
    assert quantize((1.0, 1.0, 1e-4), output, most_lost=40).agreement == pytest.approx(200 / 3)
    assert output.exists()


def without_classes(file: Path, data: Path, output: Path) -> None:
    state = checkpoint.load(file)
    del state['options']['class_names']
    torch.save(state, file)


def with_broken_image(file: Path, data: Path, output: Path) -> None:
    next((data / 'train').glob('*/*.png')).write_bytes(b'no image')


Change = Callable[[Path, Path, Path], Any]
REFUSED: dict[str, tuple[str, Change]] = {
    'no checkpoint': ('There is no checkpoint .*last.pth.tar', lambda file, data, output: file.unlink()),
    'no classes': ('last.pth.tar does not name its classes', without_classes),
    'weights alone': ('last.pth.tar does not name its classes', lambda file, data, output: torch.save({}, file)),
    'other classes': (
        "data has other classes than .*last.pth.tar was trained on: ..*'other'",
        lambda file, data, output: next((data / 'validation').iterdir()).rename(data / 'validation' / 'other'),
    ),
    'no images': (
        'There is no folder or tar .*train',
        lambda file, data, output: shutil.rmtree(data / 'train'),
    ),
    'empty': (
        'train has no images in class folders',
        lambda file, data, output: (shutil.rmtree(data / 'train'), (data / 'train').mkdir()),
    ),
    'a broken image': ('cannot be read as an image', with_broken_image),
    'an output that is there': (
        'net.onnx exists: name another',
        lambda file, data, output: (output.parent.mkdir(), output.touch()),
    ),
    'an output below a file': ('out', lambda file, data, output: output.parent.touch()),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused(case: str, finished: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, change = REFUSED[case]
    file, data, output = tmp_path / 'last.pth.tar', tmp_path / 'data', tmp_path / 'out' / 'net.onnx'
    shutil.copy(finished / 'last.pth.tar', file)
    shutil.copytree(folders, data)
    change(file, data, output)
    before = sorted(tmp_path.rglob('*'))
    assert main(['int8', str(file), str(data), str(output)]) == 1
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and re.search(f'^timm-attn: .*{message}', said), said
    assert [path for path in sorted(tmp_path.rglob('*')) if path.is_file()] == [p for p in before if p.is_file()]


def test_other_suffixes_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['int8', 'x.pth.tar', 'DATA', str(tmp_path / 'net.pt')]) == 1
    assert 'The output must be a file NAME.onnx, but got ' in capsys.readouterr().err
    assert main(['int8', 'x.pth.tar', 'DATA', str(tmp_path / 'net.onnx'), '--images', '0']) == 1
    assert 'at least one image, but got 0' in capsys.readouterr().err
    for points in ('-1', 'nan', '101'):
        assert main(['int8', 'x.pth.tar', 'DATA', str(tmp_path / 'net.onnx'), '--most-lost', points]) == 1
        assert 'from 0 to 100 points of top-1, but got ' in capsys.readouterr().err


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, 'find_spec', lambda name: None if name == 'onnxruntime' else name)
    with pytest.raises(RuntimeError, match=r"INT8 needs onnxruntime: pip install 'timm-attn\[deploy\]'"):
        int8.require_onnxruntime()
