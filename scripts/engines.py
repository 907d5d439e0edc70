"""The engines that nets are deployed to, as rows: how each converts a net and runs the result.

They serve tests/deploy and engine_table.py, which ask whether an attention computes the same there. For exporting a
net there is timmx: python -m timm_attn.run timmx export ...
"""

import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from engine_runs import ANY_SIZE, Run, exported_program, run_onnx, run_openvino
from engines_int8 import litert_int8, nncf_int8, nncf_int8_without_overflow, onnxruntime_int8, pt2e_int8
from torch import Tensor, nn

import timm_attn
from timm_attn.deploy.int8 import onnx_file

Convert = Callable[[nn.Module, Tensor], Run]


class Engine(NamedTuple):
    """A row.

    Args:
        convert: called with a net in evaluation and example images, gives what runs it.
        needs: the distributions that it imports.
        any_size: one conversion serves every batch size, height and width; otherwise those of the example.
        int8: weights and maps have 8 bits, so the logits are compared by signal to noise.
        option: another conversion, and what it is called, for nets that fail with the first.
    """

    convert: Convert
    needs: tuple[str, ...] = ()
    any_size: bool = True
    int8: bool = False
    option: tuple[str, Convert] | None = None

    def missing(self) -> list[str]:
        """What of `needs` is not installed."""
        return [name for name in self.needs if util.find_spec(_MODULES.get(name, name)) is None]

    def versions(self) -> dict[str, str]:
        return {name: metadata.version(name) for name in ('torch', *self.needs)}


_MODULES = {'litert-torch': 'litert_torch'}


def script(net: nn.Module, images: Tensor) -> Run:
    return torch.jit.script(net)


def script_of_fused(net: nn.Module, images: Tensor) -> Run:
    return torch.jit.script(timm_attn.fuse(net))


def exported(net: nn.Module, images: Tensor) -> Run:
    return exported_program(net, images).module()


def onnx_dynamo(net: nn.Module, images: Tensor) -> Run:
    program = torch.onnx.export(
        net, (images,), dynamo=True, dynamic_shapes=(ANY_SIZE,), opset_version=20, verbose=False
    )
    assert program is not None
    return run_onnx(program.model_proto.SerializeToString())


def onnx_legacy(net: nn.Module, images: Tensor) -> Run:
    return run_onnx(onnx_file(net, images))


def openvino_of_onnx(net: nn.Module, images: Tensor) -> Run:
    return _openvino(io.BytesIO(onnx_file(net, images)))


def openvino_of_torch(net: nn.Module, images: Tensor) -> Run:
    return _openvino(net, example_input=images, input=[(-1, images.shape[1], -1, -1)])


def ncnn(net: nn.Module, images: Tensor) -> Run:
    """By pnnx, in float32, one image at a time."""
    import ncnn

    with tempfile.TemporaryDirectory() as folder:
        torch.jit.trace(net, images[:1]).save(f'{folder}/net.pt')
        size = ','.join(map(str, (1, *images.shape[1:])))
        command = [str(Path(sys.executable).with_name('pnnx')), 'net.pt', f'inputshape=[{size}]', 'fp16=0']
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        loaded = ncnn.Net()
        for option in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic'):
            setattr(loaded.opt, option, False)
        if loaded.load_param(f'{folder}/net.ncnn.param') or loaded.load_model(f'{folder}/net.ncnn.bin'):
            raise RuntimeError(f'ncnn cannot load what pnnx wrote: {done.stderr[-300:]}')

    def run(images: Tensor) -> Tensor:
        return torch.stack([_ncnn_run(loaded, image) for image in images])

    return run


def aot_inductor(net: nn.Module, images: Tensor) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        package = torch._inductor.aoti_compile_and_package(
            exported_program(net, images, {0: torch.export.Dim.DYNAMIC}), package_path=f'{folder}/net.pt2'
        )
        return torch._inductor.aoti_load_package(package)


def executorch(net: nn.Module, images: Tensor) -> Run:
    """The delegate XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    lowered = to_edge_transform_and_lower(exported_program(net, images, {}), partitioner=[XnnpackPartitioner()])
    runtime, file = Runtime.get(), lowered.to_executorch().buffer
    program = runtime.load_program(file)
    method = program.load_method('forward')
    kept = (runtime, file, program)  # the method reads their memory

    def run(images: Tensor) -> Tensor:
        assert kept
        return method.execute([images.contiguous()])[0].clone()

    return run


def litert(net: nn.Module, images: Tensor) -> Run:
    import litert_torch

    model = litert_torch.convert(net, (images,))
    return lambda x: torch.from_numpy(np.asarray(model(x)))


ENGINES: Mapping[str, Engine] = {
    'TorchScript': Engine(script),
    'TorchScript of fuse': Engine(script_of_fused),
    'torch.export': Engine(exported),
    'ONNX dynamo': Engine(onnx_dynamo, ('onnx', 'onnxscript', 'onnxruntime')),
    'ONNX legacy': Engine(onnx_legacy, ('onnx', 'onnxruntime')),
    'OpenVINO of ONNX': Engine(openvino_of_onnx, ('onnx', 'openvino')),
    'OpenVINO of torch': Engine(openvino_of_torch, ('openvino',)),
    'ncnn': Engine(ncnn, ('ncnn', 'pnnx'), any_size=False),
    'AOTInductor': Engine(aot_inductor, any_size=False),
    'ExecuTorch XNNPACK': Engine(executorch, ('executorch',), any_size=False),
    'LiteRT': Engine(litert, ('litert-torch',), any_size=False),
    'INT8 onnxruntime': Engine(onnxruntime_int8, ('onnx', 'onnxruntime'), int8=True),
    'INT8 NNCF': Engine(
        nncf_int8, ('onnx', 'openvino', 'nncf'), int8=True, option=('overflow_fix', nncf_int8_without_overflow)
    ),
    'INT8 pt2e x86': Engine(pt2e_int8, ('torchao',), any_size=False, int8=True),
    'INT8 LiteRT': Engine(litert_int8, ('litert-torch', 'torchao'), any_size=False, int8=True),
}


def _ncnn_run(net: Any, image: Tensor) -> Tensor:
    import ncnn

    extractor = net.create_extractor()
    extractor.input('in0', ncnn.Mat(image.numpy()).clone())
    code, logits = extractor.extract('out0')
    if code:
        raise RuntimeError(f'ncnn ends with code {code}')
    return torch.from_numpy(np.array(logits))


def _openvino(model: Any, **options: Any) -> Run:
    import openvino

    return run_openvino(openvino.convert_model(model, **options))
