"""Checks that timm's own model tests lack, for every model; collected only by `scripts/timm_suite.py --extra`."""

import copy
import fnmatch
import inspect
import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import set_exportable
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from timm_attn import fuse

Model = Any  # an nn.Module; timm's models share more methods than their common base class declares

# Parameters whose gradient is zero by mathematics: (models, parameters) -> why.
ZERO_GRADIENTS = {
    ('*_gc', r'conv_mask\.bias'): 'a softmax does not see a shift',
    (
        'mobilenetv2_gc',
        r'blocks\.(0\.0|1\.[01])\.block_attn\.((conv_mask|fc1)\.\w+|norm\.weight)',
    ): 'LN of one value is constant',
}

every_model = pytest.mark.parametrize('model_name', timm.list_models())


def build(model_name: str, **kwargs: Any) -> Model:
    """Model in eval mode with random norms that know their statistics.

    A last norm of zeros would hide its whole block; norms that do not normalise let a deep net grow until its outputs
    are rounding.
    """
    model: Model = timm.create_model(model_name, **kwargs).train()
    for parameter in model.parameters():
        if not parameter.any():  # a last layer of zeros hides what is before it, too
            nn.init.normal_(parameter, std=0.1)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.momentum = 1.0
    with torch.no_grad():
        model(images(model, batch=8))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def images(model: Model, batch: int = 2, side: int = 64) -> Tensor:
    """Random images of the model's input size, but no larger than `side`."""
    channels, height, width = model.pretrained_cfg['input_size']
    return torch.randn(batch, channels, min(height, side), min(width, side))


def step(model: Model, x: Tensor) -> Tensor:
    """Outputs of one training step; the gradients are left in the parameters."""
    outputs = model(x)
    outputs.float().square().mean().backward()
    return outputs.detach()


def gradients(model: Model) -> dict[str, Tensor]:
    """The gradients by parameter name."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_finite_step(model: Model, x: Tensor) -> None:
    """A training step leaves neither NaN nor infinity in the outputs, the gradients and the running statistics."""
    named = {'outputs': step(model, x), **gradients(model), **dict(model.named_buffers())}
    assert not [name for name, tensor in named.items() if not tensor.isfinite().all()]


def error(outputs: Tensor, exact: Tensor) -> Tensor:
    """How far outputs are from those in float64, relative to them; the depth of a net multiplies rounding."""
    return (outputs - exact).norm() / exact.norm()


def one_pixel_images(model: Model) -> Tensor:
    """Two images so small that the last feature map is 1x1; stems without padding need twice the total stride."""
    stride = model.feature_info[-1]['reduction']
    for side in (stride, 2 * stride):
        x = torch.randn(2, 3, side, side)
        try:
            if model.forward_features(x).shape[-2:] == (1, 1):
                return x
        except RuntimeError:  # an unpadded kernel larger than its input
            continue
    pytest.fail('no input size leaves a 1x1 map')


@every_model
def test_export(model_name: str) -> None:
    """torch.export at a fixed size, built as timm's ONNX export builds it; in float64, as what follows."""
    with set_exportable(True):
        model = build(model_name).double()
    x = images(model).double()
    assert_close(torch.export.export(model, (x,)).module()(x), model(x), rtol=1e-6, atol=1e-9)


@every_model
def test_export_dynamic(model_name: str) -> None:
    """One exported program for every batch size, height and width."""
    model = build(model_name).double()
    x = images(model).double()
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,)).module()
    for batch, higher, wider in ((3, 32, 64), (5, 64, 0)):
        other = torch.randn(batch, x.shape[1], x.shape[2] + higher, x.shape[3] + wider, dtype=x.dtype)
        assert_close(program(other), model(other), rtol=1e-6, atol=1e-9)


@every_model
def test_compile(model_name: str) -> None:
    """torch.compile without graph breaks trains as eager does; in float64, where no rounding can hide a difference."""
    torch._dynamo.reset()
    eager = build(model_name).double().train()
    twin = copy.deepcopy(eager)
    x = images(eager).double()
    actual = step(torch.compile(twin, backend='aot_eager', fullgraph=True), x)
    assert_close(actual, step(eager, x), rtol=1e-6, atol=1e-9)
    assert_close(gradients(twin), gradients(eager), rtol=1e-5, atol=1e-8)


@every_model
@pytest.mark.parametrize('convert', [torch.jit.trace, lambda m, x: torch.jit.script(m)], ids=['trace', 'script'])
def test_torchscript_saved(model_name: str, convert: Callable[[Model, Tensor], Model]) -> None:
    """Traced and scripted models compute the same after saving and loading."""
    model = build(model_name, scriptable=True).double()
    x = images(model).double()
    file = io.BytesIO()
    torch.jit.save(convert(model, x), file)
    file.seek(0)
    assert_close(torch.jit.load(file)(x), model(x), rtol=1e-6, atol=1e-9)


@every_model
@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['copy', 'pickle'])
def test_duplicate(model_name: str, duplicate: Callable[[Model], Model]) -> None:
    """Copied and pickled models are the same model."""
    model = build(model_name)
    x = images(model)
    twin = duplicate(model)
    assert_close(twin(x), model(x), rtol=0, atol=0)
    assert repr(twin) == repr(model)


@every_model
def test_channels_last(model_name: str) -> None:
    """The memory format changes neither the outputs nor the gradients."""
    model = build(model_name).double()
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = images(model).double()
    assert_close(step(twin, x.to(memory_format=torch.channels_last)), step(model, x), rtol=1e-6, atol=1e-9)
    assert_close(gradients(twin), gradients(model), rtol=1e-5, atol=1e-8)


@every_model
def test_autocast(model_name: str) -> None:
    """Under bfloat16 autocast the outputs are as near as those of the bfloat16 net, and a training step is finite."""
    model = build(model_name)
    x = images(model, batch=8)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        half = error(copy.deepcopy(model).bfloat16()(x.bfloat16()), exact)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            outputs = model(x)
    assert error(outputs, exact) <= 2 * half
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert_finite_step(model.train(), x)


@every_model
def test_every_parameter_learns(model_name: str) -> None:
    """Every parameter gets a gradient, but those whose gradient is zero by mathematics."""
    model = build(model_name).double()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):  # a dead unit would be an accident of the random weights
                setattr(module, name, nn.LeakyReLU())
    step(model, images(model).double())
    sizes = {name: gradient.abs().max() for name, gradient in gradients(model).items()}
    zero = {name for name, _ in model.named_parameters() if sizes.get(name, 0) < 1e-12 * max(sizes.values())}
    rules = [parameter for glob, parameter in ZERO_GRADIENTS if fnmatch.fnmatch(model_name, glob)]
    assert zero == {name for name, _ in model.named_parameters() if any(re.search(f'{r}$', name) for r in rules)}


@every_model
def test_optimizer_groups(model_name: str) -> None:
    """With layer decay each parameter is in one group, the stem learns slowest, the head fastest, norms decay 0."""
    model = build(model_name)
    groups = create_optimizer_v2(model, 'momentum', lr=0.1, weight_decay=1e-4, layer_decay=0.75).param_groups
    group_of = {id(parameter): group for group in groups for parameter in group['params']}
    assert sum(len(group['params']) for group in groups) == len(group_of) == len(list(model.parameters()))
    scales = [group_of[id(parameter)]['lr_scale'] for parameter in model.parameters()]
    assert scales[0] == min(scales) < scales[-1] == max(scales) == 1
    assert {group_of[id(p)]['weight_decay'] for p in model.parameters() if p.ndim <= 1} == {0}


@every_model
@pytest.mark.parametrize('feature_cls', [None, 'hook', 'getter', 'fx'])
def test_features_agree(model_name: str, feature_cls: str | None, tmp_path: Path) -> None:
    """Every way to extract features gives the maps of forward_intermediates, from the same checkpoint."""
    model = build(model_name)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    weights = {'file': str(tmp_path / 'weights.pth')}
    kwargs: dict[str, Any] = {'features_only': True, 'feature_cls': feature_cls}
    extractor: Model = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay=weights, **kwargs)
    extractor.eval().double()  # a graph takes other paths than eager mode, and rounds otherwise
    x = images(model.double()).double()
    maps = list(extractor(x))
    assert [m.shape[1] for m in maps] == extractor.feature_info.channels()
    indices = list(extractor.feature_info.out_indices)
    expected = model.forward_intermediates(x, indices=indices, intermediates_only=True)
    assert_close(maps, expected, rtol=1e-6, atol=1e-9)


@every_model
def test_hub_round_trip(model_name: str, tmp_path: Path) -> None:
    """A model saved for the hub comes back from its folder with its weights and its preprocessing."""
    model = build(model_name, num_classes=5)
    timm.models.save_for_hf(model, str(tmp_path))
    loaded: Model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    x = images(model)
    assert_close(loaded(x), model(x), rtol=0, atol=0)
    before, after = (json.dumps(resolve_model_data_config(m)) for m in (model, loaded))  # JSON has no tuples
    assert after == before


@every_model
def test_one_pixel_maps(model_name: str) -> None:
    """Attention over a single position is finite (a variance divided by h * w - 1 would not be)."""
    model = build(model_name)
    x = one_pixel_images(model)
    assert model(x).isfinite().all()
    assert_finite_step(model.train(), x)


@every_model
def test_train_batch_of_one(model_name: str) -> None:
    """A last batch of a single image can be trained on."""
    model = build(model_name).train()
    assert_finite_step(model, images(model, batch=1, side=96))


@every_model
def test_prune_to_an_inner_stage(model_name: str) -> None:
    """A net cut behind an inner stage ends with that stage's map, also one that is no feature of timm's."""
    model = build(model_name)
    accepted = inspect.signature(model.prune_intermediate_layers).parameters
    kwargs = {'extra_blocks': True} if 'extra_blocks' in accepted else {}  # timm's EfficientNets count every stage
    x = images(model)
    (expected,) = model.forward_intermediates(x, indices=[2], intermediates_only=True, **kwargs)
    model.prune_intermediate_layers([2], **kwargs)
    assert_close(model.forward_features(x), expected)
    assert model.num_features == expected.shape[1]


@every_model
def test_fused(model_name: str) -> None:
    """The fused net is as near to the float64 net as the net itself is in its worse memory format, in every dtype.

    Of one net, whose norms magnify rounding, the two formats alone may be apart by a factor of 3.
    """
    model = build(model_name).double()
    x = images(model).double()
    with torch.no_grad():
        exact = model(x)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            model = model.to(dtype)  # in this order no rounding of one is seen by another
            fused = error(fuse(model)(x.to(dtype)), exact)
            formats = (torch.channels_last, torch.contiguous_format)  # ends as it began
            plain = max(error(model.to(memory_format=f)(x.to(dtype, memory_format=f)), exact) for f in formats)
            assert fused <= 3 * plain + 1e-10, dtype
