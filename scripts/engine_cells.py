"""One cell of the table of engines: a small net with an attention, converted, run and compared with torch."""

from typing import Any, NamedTuple

import torch
from engines import Engine
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import timm_attn
from timm_attn import ATTENTION

PLAIN = 'plain'
NETS = (PLAIN, *ATTENTION)
EXAMPLE = (2, 3, 64, 48)  # what is converted
OTHERS = ((1, 3, 64, 48), (3, 3, 96, 64))  # what a conversion for any size must take, too
LARGEST_DIFFERENCE = 1e-4  # of logits, relative to the largest
LEAST_SIGNAL = 20.0  # of INT8, dB of signal to noise


class Cell(NamedTuple):
    """What became of a net in an engine.

    Args:
        works: whether the logits are those of torch.
        value: the largest difference relative to the largest logit, or with INT8 the signal to noise in dB; the
            worst of the sizes.
        note: the option that it needs; of what fails, why.
    """

    works: bool
    value: float | None = None
    note: str = ''


def small_net(name: str) -> nn.Module:
    """Two stages of timm's ResNet behind its stem, with random norms that know their statistics, in evaluation."""
    torch.manual_seed(0)
    net: Any = ResNet(BasicBlock, layers=(1, 1), channels=(32, 64), num_classes=10)
    net.layer3 = net.layer4 = nn.Identity()
    if name != PLAIN:
        timm_attn.attach(net, name, stages=('layer1',) if ATTENTION[name].site == 'stage' else ())
    for parameter in net.parameters():
        if not parameter.any():  # a last layer of zeros hides what is before it
            nn.init.normal_(parameter, std=0.1)
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(8, *EXAMPLE[1:]))
    return net.eval()


def cell(engine: Engine, name: str) -> Cell:
    """The cell of an engine and a net, with the engine's option where it needs it."""
    found = _tried(engine, name)
    if not found.works and engine.option is not None:
        option, convert = engine.option
        other = _tried(engine._replace(convert=convert), name)
        if other.works:
            return other._replace(note=f'with {option}')
        return found._replace(note=f'{found.note}; with {option}: {other.note}')
    return found


def _tried(engine: Engine, name: str) -> Cell:
    try:
        value = measured(engine, small_net(name))
    except Exception as error:  # of any engine
        return Cell(False, None, f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
    if engine.int8:
        works, said = value >= LEAST_SIGNAL, f'{value:.0f} dB of signal to noise'
    else:
        works, said = value <= LARGEST_DIFFERENCE, f'logits differ by {value:.1e} of the largest'
    return Cell(works, value, '' if works else said)


@torch.no_grad()
def measured(engine: Engine, net: nn.Module) -> float:
    """The value of a cell.

    Raises:
        ValueError: the logits are not finite, or have another shape.
    """
    run = engine.convert(net, _images(EXAMPLE))
    values = []
    for size in (EXAMPLE, *OTHERS) if engine.any_size else (EXAMPLE,):
        images = _images(size)
        expected, logits = net(images), run(images)
        if logits.shape != expected.shape:
            raise ValueError(f'logits of shape {tuple(logits.shape)} instead of {tuple(expected.shape)}')
        if not logits.isfinite().all():
            raise ValueError('logits that are not finite')
        difference = (logits - expected).double()
        if engine.int8:
            noise = difference.square().sum().clamp(min=1e-30)
            values.append(10 * torch.log10(expected.double().square().sum() / noise))
        else:
            values.append(difference.abs().max() / expected.abs().max())
    worst = torch.stack(values)
    return (worst.min() if engine.int8 else worst.max()).item()


def _images(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(2))
