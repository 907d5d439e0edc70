"""The engines' conversions to 8 bits, with ranges from random images."""

import io
from typing import Any

import torch
from engine_runs import Run, exported_program, run_onnx, run_openvino
from torch import Tensor, nn

from timm_attn.deploy.int8 import onnx_file, quantized

CALIBRATION = 16  # images


def onnxruntime_int8(net: nn.Module, images: Tensor) -> Run:
    return run_onnx(quantized(onnx_file(net, images), calibration(images)))


def nncf_int8(net: nn.Module, images: Tensor, **options: Any) -> Run:
    import nncf
    import openvino

    model = openvino.convert_model(io.BytesIO(onnx_file(net, images)))
    data = nncf.Dataset([batch.numpy() for batch in calibration(images)])
    return run_openvino(nncf.quantize(model, data, subset_size=CALIBRATION, **options))


def nncf_int8_without_overflow(net: nn.Module, images: Tensor) -> Run:
    import nncf

    fixed = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    return nncf_int8(net, images, advanced_parameters=fixed)


def pt2e_int8(net: nn.Module, images: Tensor) -> Run:
    """torchao's quantizer for x86."""
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    return _pt2e(net, images, quantizer)


def litert_int8(net: nn.Module, images: Tensor) -> Run:
    """LiteRT's own quantizer for pt2e; the file takes and gives integers."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter
    from litert_torch.quantize import pt2e_quantizer, quant_config

    quantizer = pt2e_quantizer.PT2EQuantizer()
    quantizer.set_global(pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True))
    converted = _pt2e(net, images, quantizer, fold_quantize=False)
    config = quant_config.QuantConfig(pt2e_quantizer=quantizer)
    file = litert_torch.convert(converted, (images,), quant_config=config).model_content()
    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Tensor) -> Tensor:
        scale, zero = taken['quantization']
        numbers = (images / scale + zero).round().clamp(-128, 127).to(torch.int8) if scale else images
        interpreter.set_tensor(taken['index'], numbers.numpy())
        interpreter.invoke()
        scale, zero = given['quantization']
        logits = torch.from_numpy(interpreter.get_tensor(given['index'])).float()
        return (logits - zero) * scale if scale else logits

    return run


def _pt2e(net: nn.Module, images: Tensor, quantizer: Any, **options: Any) -> Any:
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared: Any = prepare_pt2e(exported_program(net, images, {}).module(), quantizer)
    for batch in calibration(images):
        prepared(batch)
    converted = convert_pt2e(prepared, **options)
    move_exported_model_to_eval(converted)
    return converted


def calibration(images: Tensor) -> list[Tensor]:
    """Random images of the size of the given ones, in batches of that many."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images.shape, generator=generator) for _ in range(CALIBRATION // len(images))]
