"""What several engines share: the exported program, and how onnxruntime and OpenVINO run."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[[Tensor], Tensor]  # images, (N, 3, H, W) -> logits
ANY_SIZE = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)


def exported_program(
    net: nn.Module, images: Tensor, sizes: Mapping[int, Any] = ANY_SIZE
) -> torch.export.ExportedProgram:
    return torch.export.export(copy.deepcopy(net), (images,), dynamic_shapes=(dict(sizes),))


def run_onnx(model: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


@cache
def _openvino_core() -> Any:
    """One core per process: after two, OpenVINO 2026.4.1 may leave a freed stack, on which the next signal crashes."""
    import openvino

    return openvino.Core()


def run_openvino(model: Any) -> Run:
    config = {'INFERENCE_NUM_THREADS': 1, 'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = _openvino_core().compile_model(model, 'CPU', config)
    return lambda images: torch.from_numpy(compiled([images.numpy()])[0].copy())
