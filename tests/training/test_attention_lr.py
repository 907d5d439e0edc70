"""attention_lr_scale: the attention layers' learning rate in a training."""

from pathlib import Path

import pytest
import timm
import torch

from tests.support.images import assert_same_weights, interrupted, short
from timm_attn.attach import attention_layers
from timm_attn.training.engine import make_optimizer, make_scheduler
from timm_attn.training.runner import train

MODEL = 'cifar_resnet20_se'


def rates(optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, float]]:
    """The learning rate and weight decay of every parameter, by its id."""
    groups = optimizer.param_groups
    return {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}


@pytest.mark.parametrize('opt', ['momentum', 'adamw', 'lookahead_momentum', 'muon'])
@pytest.mark.parametrize('options', [{}, {'filter_bias_and_bn': False}, {'layer_decay': 0.5}], ids=str)
def test_all_epochs_scale_the_attention_alone(opt: str, options: dict[str, object]) -> None:
    model = timm.create_model(MODEL, attn_kwargs=dict(bias=True))
    recipe = short(
        opt=opt, opt_kwargs=options, weight_decay=0.01, warmup_epochs=2, warmup_lr=0.001, min_lr=1e-4, epochs=6
    )
    scaled_recipe = short(**{**vars(recipe), 'attention_lr_scale': 8.0})
    plain, scaled = make_optimizer(model, recipe), make_optimizer(model, scaled_recipe)
    schedules = [make_scheduler(optimizer, recipe, 5)[0] for optimizer in (plain, scaled)]
    attention = {id(p) for layer in attention_layers(model).values() for p in layer.parameters()}
    assert len(attention) == 36
    for epoch in range(6):
        for schedule in schedules:
            schedule.step(epoch)
        before, after = rates(plain), rates(scaled)
        assert before.keys() == after.keys() == {id(p) for p in model.parameters()}
        for key, (lr, decay) in before.items():
            assert after[key] == (pytest.approx(lr * (8 if key in attention else 1), rel=1e-12), decay)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    scaled.step()


def test_it_goes_on_exactly_and_not_with_another(small: Path, tmp_path: Path) -> None:
    recipe = short(epochs=2, batch_size=10, lr=0.01, attention_lr_scale=5.0)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    train(recipe, MODEL, small, whole)
    interrupted(recipe, MODEL, small, broken)
    other = short(epochs=2, batch_size=10, lr=0.01, attention_lr_scale=4.0)
    with pytest.raises(ValueError, match=r'trained otherwise: attention_lr_scale \(5.0, now 4.0\)'):
        train(other, MODEL, small, broken, resume=True)
    train(recipe, MODEL, small, broken, resume=True)
    assert_same_weights(whole, broken)


@pytest.mark.parametrize('name', ['cifar_resnet20', 'cifar_resnet20_simam'])
def test_without_attention_parameters_it_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match='CifarResNet has no attention parameters to train'):
        make_optimizer(timm.create_model(name), short(attention_lr_scale=2.0))
