"""Hooks leave a net as it was, whatever happens, and refuse images and nets that cannot be observed."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.support.nets import batches
from timm_attn import analysis, fuse
from timm_attn.analysis.hooks import observed, record
from timm_attn.attach import attention_layers

# every attention once, and every backbone that is not too large for a test


def everything_of(model: nn.Module) -> dict[str, Any]:
    """What an analysis may not change: values, modes, gradients, hooks."""
    state = {f'state {k}': v.clone() for k, v in model.state_dict().items()}
    for path, module in model.named_modules():
        state[f'mode {path}'] = module.training
        state[f'hooks {path}'] = len(module._forward_hooks) + len(module._forward_pre_hooks)
        state[f'attributes {path}'] = sorted(vars(module))
    for path, parameter in model.named_parameters():
        state[f'grad {path}'] = parameter.grad if parameter.grad is None else parameter.grad.clone()
        state[f'requires_grad {path}'] = parameter.requires_grad
    return state


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    assert now.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(now[key], value) if isinstance(value, Tensor) else now[key] == value, key


# Every function of the package, called on a net with attention.
CALLS: dict[str, Callable[[nn.Module], object]] = {
    'attention_maps': lambda m: analysis.attention_maps(m, next(batches(m))[0]),
    'branch_maps': lambda m: analysis.branch_maps(m, next(batches(m))[0]),
    'grad_cam after': lambda m: analysis.grad_cam(m, next(batches(m))[0], 'layer2'),
    'grad_cam before': lambda m: analysis.grad_cam(m, next(batches(m))[0], 'layer2', place='before', classes=1),
    'grad_cam weights': lambda m: analysis.grad_cam(m, next(batches(m))[0], 'layer1.3', place='weights'),
    'channel_profiles': lambda m: analysis.channel_profiles(m, batches(m), 3),
    'class_selectivity': lambda m: analysis.class_selectivity(m, batches(m), 3),
    'stage_views': lambda m: analysis.stage_views(m, next(batches(m))[0]),
    'cost_report': lambda m: analysis.cost_report(m, next(batches(m))[0], repeats=1),
}


@pytest.mark.parametrize('call', CALLS)
def test_the_net_stays_as_it_was(call: str) -> None:
    model = timm.create_model('cifar_resnet20_bam')
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    model.train()
    model.layer2.eval()  # modes and gradients of all kinds
    model.fc.weight.requires_grad_(False)
    model.conv1.weight.grad = None
    before = everything_of(model)
    CALLS[call](model)
    assert_same(everything_of(model), before)


@pytest.mark.parametrize('call', CALLS)
def test_the_net_stays_as_it_was_after_an_exception(call: str) -> None:
    model = timm.create_model('cifar_resnet20_bam').train()
    broken = model.layer3[2].conv2
    broken.forward = lambda x: 1 / 0
    before = everything_of(model)
    with pytest.raises(ZeroDivisionError):
        CALLS[call](model)
    assert_same(everything_of(model), before)


ON_IMAGES: dict[str, Callable[[nn.Module, Any], object]] = {
    'attention_maps': analysis.attention_maps,
    'branch_maps': analysis.branch_maps,
    'grad_cam': lambda m, x: analysis.grad_cam(m, x, 'layer2'),
    'channel_profiles': lambda m, x: analysis.channel_profiles(m, [(x, torch.tensor([0, 1]))], 2),
    'class_selectivity': lambda m, x: analysis.class_selectivity(m, [(x, torch.tensor([0, 1]))], 2),
    'stage_views': analysis.stage_views,
    'cost_report': lambda m, x: analysis.cost_report(m, x, repeats=1),
}
_NO_BATCH = r'The images must be a tensor of shape \(N, 3, H, W\), but got '
NOT_IMAGES = {
    'one image': (torch.zeros(3, 32, 32), _NO_BATCH + r'a tensor of shape \(3, 32, 32\) and torch.float32\.'),
    'no pixels': (torch.zeros(2, 3, 0, 32), _NO_BATCH + r'a tensor of shape \(2, 3, 0, 32\)'),
    'a list': ([1], _NO_BATCH + r'list\.'),
    'other dtype': (torch.zeros(2, 3, 32, 32).double(), 'Net is torch.float32 on cpu, the images are torch.float64'),
    'other device': (torch.zeros(2, 3, 32, 32, device='meta'), 'on cpu, the images are torch.float32 on meta: '),
}


@pytest.mark.parametrize('images', NOT_IMAGES)
@pytest.mark.parametrize('call', ON_IMAGES)
def test_images_that_the_net_does_not_take(call: str, images: str) -> None:
    given, message = NOT_IMAGES[images]
    with pytest.raises(ValueError, match=message):
        ON_IMAGES[call](timm.create_model('cifar_resnet20_bam'), given)


def test_a_net_may_convert_its_images_itself() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = timm.create_model('cifar_resnet20_se')

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x / 255)

    assert len(analysis.attention_maps(Raw(), torch.randint(255, (2, 3, 32, 32), dtype=torch.uint8))) == 9


def test_errors_of_a_net_on_right_images_are_its_own() -> None:
    with pytest.raises(RuntimeError, match='expected input.* to have 3 channels, but got 1') as error:
        analysis.attention_maps(timm.create_model('cifar_resnet20_se'), torch.zeros(2, 1, 32, 32))
    assert type(error.value) is RuntimeError


def test_hooks_are_gone_after_an_exception() -> None:
    model = timm.create_model('cifar_resnet20_se')
    layers = attention_layers(model)
    with pytest.raises(ZeroDivisionError), record(layers, lambda layer, x: 1 / 0):
        model(torch.randn(1, 3, 28, 28))
    assert not any(layer._forward_pre_hooks for layer in layers.values())


@pytest.mark.parametrize(
    'make, what',
    [
        (lambda m: torch.jit.script(m), 'scripted'),
        (lambda m: torch.compile(m), 'compiled'),
        (lambda m: setattr(m, 'layer1', torch.compile(m.layer1)) or m, 'compiled'),
        (lambda m: m.compile() or m, 'compiled'),
        (fuse, 'fused'),
    ],
)
def test_a_scripted_or_compiled_net_is_refused(make: Callable[[nn.Module], nn.Module], what: str) -> None:
    model = make(timm.create_model('cifar_resnet20_bam').eval())
    for call in CALLS.values():
        with pytest.raises(ValueError, match=f'do not run in a {what} net: analyse the net before that'):
            call(model)


def test_observed_gives_each_module_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with observed(model):
        assert not model[0].training
    assert model[0].training and not model[1].training and model.training


@pytest.mark.parametrize('call', ['attention_maps', 'branch_maps', 'channel_profiles'])
def test_a_model_without_attention(call: str) -> None:
    with pytest.raises(ValueError, match=r'CifarResNet has no attention layers\.'):
        CALLS[call](timm.create_model('cifar_resnet20'))
