"""attention_param_groups for any optimiser."""

import pytest
import timm
import torch

import timm_attn
from timm_attn.attach import attention_layers


@pytest.mark.parametrize('name', ['cifar_resnet20_se', 'cifar_resnet20_bam', 'resnet18_cbam'])
def test_every_parameter_is_in_one_group(name: str) -> None:
    model = timm.create_model(name)
    others, attention = timm_attn.attention_param_groups(model, 0.1, scale=5)
    assert (others['lr'], attention['lr']) == (0.1, 0.5)
    inside = [p for layer in attention_layers(model).values() for p in layer.parameters()]
    assert {id(p) for p in attention['params']} == {id(p) for p in inside}
    ids = [id(p) for p in (*others['params'], *attention['params'])]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_each_group_steps_at_its_rate() -> None:
    model = timm.create_model('cifar_resnet20_eca')
    optimizer = torch.optim.SGD(timm_attn.attention_param_groups(model, 0.01))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        step = 0.1 if 'block_attn' in name else 0.01
        torch.testing.assert_close(before[name] - p, torch.full_like(p, step))


def test_frozen_parameters_are_left_out() -> None:
    model = timm.create_model('cifar_resnet20_se')
    for name, p in model.named_parameters():
        p.requires_grad_('block_attn' in name)
    (attention,) = timm_attn.attention_param_groups(model, 1.0)
    assert attention['lr'] == 10 and len(attention['params']) == 18


@pytest.mark.parametrize(
    'name, arguments, message',
    [
        ('cifar_resnet20', (0.1,), 'CifarResNet has no attention parameters to train: it has no attention'),
        ('cifar_resnet20_simam', (0.1,), 'has no attention parameters to train: SimAM has none'),
        ('cifar_resnet20_se', (0.0,), 'lr must be a positive number, but got 0.0'),
        ('cifar_resnet20_se', (0.1, -1), 'scale must be a positive number, but got -1'),
    ],
)
def test_bad_input(name: str, arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm_attn.attention_param_groups(timm.create_model(name), *arguments)


def test_frozen_attention_is_named() -> None:
    model = timm.create_model('cifar_resnet20_se').requires_grad_(False)
    with pytest.raises(ValueError, match='no attention parameters to train: all of them are frozen'):
        timm_attn.attention_param_groups(model, 0.1)
