"""INT8 for onnxruntime: a net as an ONNX file with 8-bit weights and maps, written only if it answers like the net."""

import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from timm_attn.files import check_writable, write_whole

MOST_LOST = 1.0  # points of top-1: MLPerf Inference asks a quantized ResNet-50 for 99 % of its float accuracy


class Int8(NamedTuple):
    """What became of a net.

    Args:
        images: how many the figures are of.
        before, after: top-1 in percent, in float by torch and in INT8 by onnxruntime.
        agreement: in percent of the images, both predict the same class.
        sqnr: the logits' signal to quantization noise in dB.
    """

    images: int
    before: float
    after: float
    agreement: float
    sqnr: float


def quantize(
    model: nn.Module,
    calibration: Iterable[Tensor],
    test: Iterable[tuple[Tensor, Tensor]],
    output: Path,
    most_lost: float = MOST_LOST,
) -> Int8:
    """Writes a net's INT8 file for any batch size, height and width.

    Args:
        model: in evaluation, on the CPU.
        calibration: batches of images, (N, C, H, W), from which the ranges of the maps are taken.
        test: batches of other images and their labels, on which the file is compared with the net.
        most_lost: points of top-1; a file that lost more is not written.

    Raises:
        ValueError: the output is there already or is no .onnx file, most_lost is no loss, there are no images, the
            net's maps or logits are not finite, or INT8 lost too much.
        RuntimeError: onnx or onnxruntime is not installed.
    """
    require_onnxruntime()
    check_output(output)
    check_most_lost(most_lost)
    images = iter(calibration)
    first = next(images, None)
    if first is None:
        raise ValueError('The ranges of the maps need at least one batch of images, but there is none.')
    content = quantized(onnx_file(model, first), chain([first], images))
    found = compared(model, content, test)
    if not found.before - found.after <= most_lost:
        raise ValueError(
            f'INT8 takes the top-1 from {found.before:.2f} to {found.after:.2f} %, more than the {most_lost:g} points '
            f'that it may lose, so {output} is not written.'
        )
    write_whole(output, content)
    return found


def require_onnxruntime() -> None:
    """Raises RuntimeError where onnx or onnxruntime is not installed."""
    missing = [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]
    if missing:
        raise RuntimeError(f"INT8 needs {' and '.join(missing)}: pip install 'timm-attn[deploy]'.")


def check_most_lost(points: float) -> None:
    """Raises ValueError unless it is a loss of top-1."""
    if not 0 <= points <= 100:
        raise ValueError(f'INT8 may lose from 0 to 100 points of top-1, but got {points}.')


def check_output(output: Path) -> None:
    """Raises ValueError unless a new .onnx file can be written there."""
    if output.suffix != '.onnx':
        raise ValueError(f'The output must be a file NAME.onnx, but got {output}.')
    if output.exists():
        raise ValueError(f'{output} exists: name another output, or delete it.')
    check_writable(output)


def onnx_file(model: nn.Module, images: Tensor) -> bytes:
    """A net as ONNX, `images` -> `logits`, by torch's older exporter, for every batch size, height and width."""
    file: Any = io.BytesIO()  # typed more narrowly than it is
    axes = {'images': {0: 'n', 2: 'h', 3: 'w'}, 'logits': {0: 'n'}}
    names: dict[str, Any] = dict(input_names=['images'], output_names=['logits'], dynamic_axes=axes)
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, torch.jit.TracerWarning):
            warnings.simplefilter('ignore', kind)
        torch.onnx.export(model, (images,), file, opset_version=17, dynamo=False, **names)
    return file.getvalue()


def quantized(model: bytes, batches: Iterable[Tensor]) -> bytes:
    """An ONNX file in INT8: weights per channel, the maps' ranges from batches of images.

    The range is reduced to 7 bits: processors without VNNI add two products up in 16 bits.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'int8.onnx')
        loaded = onnx.load_from_string(model)
        logging.disable(logging.WARNING)  # of norms, which have no second axis, and of an optional step before this
        try:
            quantize_static(loaded, file, _Reader(batches), QuantFormat.QDQ, per_channel=True, reduce_range=True)
        except AssertionError as error:
            raise ValueError(f'onnxruntime finds no ranges of the maps, which may not be finite: {error}.') from error
        finally:
            logging.disable(logging.NOTSET)
        return file.read_bytes()


class _Reader:
    """Batches of images as onnxruntime asks for them."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {'images': batch.numpy()}


@torch.inference_mode()
def compared(model: nn.Module, content: bytes, test: Iterable[tuple[Tensor, Tensor]]) -> Int8:
    """The figures of an ONNX file beside the net that it was made of."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    seen, hits, signal, noise = 0, torch.zeros(3, dtype=torch.int64), 0.0, 0.0
    for images, labels in test:
        logits = model(images).double()
        if not logits.isfinite().all():
            raise ValueError('The net has logits that are not finite, with which no others can be compared.')
        theirs = torch.from_numpy(session.run(None, {'images': images.numpy()})[0]).double()
        classes, other = logits.argmax(dim=1), theirs.argmax(dim=1)
        seen += len(labels)
        hits += torch.stack([classes == labels, other == labels, classes == other]).sum(dim=1)
        signal += logits.square().sum().item()
        noise += (theirs - logits).square().sum().item()
    if not seen:
        raise ValueError('The accuracy needs at least one batch of images, but there is none.')
    before, after, agreement = (100 * hits / seen).tolist()
    return Int8(seen, before, after, agreement, 10 * math.log10(max(signal, 1e-30) / max(noise, 1e-30)))
