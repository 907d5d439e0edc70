"""Nets put together at random from operations that a fold of scales must follow or refuse."""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_attn.attention import BAM, ECA, GC, SE, SRM

CHANNELS = 8
Step = Callable[['RandomNet', list[Tensor], random.Random], None]  # changes the pool of maps (N, 8, H, W)


class RandomNet(nn.Module):
    """A pool of maps, to which one operation after the other is applied; the classifier takes two of them.

    Every step draws its operands from a generator that starts anew in each forward pass.
    """

    def __init__(self, seed: int, steps: int = 12) -> None:
        super().__init__()
        self.seed, draw = seed, random.Random(seed)
        self.layers = nn.ModuleDict()
        self.chosen = [conv_norm_act, *draw.choices(STEPS, WEIGHTS, k=steps)]
        self.chosen.insert(draw.randrange(1, len(self.chosen)), attention)
        self.head = nn.Linear(2 * CHANNELS, 5)
        self.double()(torch.randn(2, 3, 6, 6, dtype=torch.float64))  # makes the layers
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.3), module.running_var.uniform_(0.5, 1.5)
                    module.weight.uniform_(0.5, 1.5), module.bias.normal_(std=0.3)

    def layer(self, kind: str, make: Callable[[], nn.Module], shared: bool = False) -> nn.Module:
        """The layer of the present step, made when it first runs; a shared one is the same for all its steps."""
        key = kind if shared else f'{kind}{self.step}'
        if key not in self.layers:
            self.layers[key] = make().double()
        return self.layers[key]

    def forward(self, x: Tensor) -> Tensor:
        draw = random.Random(self.seed + 1)
        stem = self.layers['stem'] if 'stem' in self.layers else nn.Conv2d(3, CHANNELS, 3, padding=1).double()
        self.layers['stem'] = stem
        pool = [stem(x)]
        for step, chosen in enumerate(self.chosen):
            self.step = step
            chosen(self, pool, draw)
        last, other = pool[-1], draw.choice(pool)
        return self.head(torch.cat([last, other], dim=1).mean(dim=(2, 3)))


def conv(groups: int = 1, size: int = 3, bias: bool = True) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(CHANNELS, CHANNELS, size, padding=size // 2, groups=groups, bias=bias)


def conv_norm_act(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    groups = draw.choice((1, 2, CHANNELS))
    y = net.layer('conv', conv(groups, bias=draw.random() < 0.5))(draw.choice(pool))
    y = net.layer('bn', lambda: nn.BatchNorm2d(CHANNELS))(y)
    pool.append(y.relu_() if draw.random() < 0.5 else F.relu(y))


def residual(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x = draw.choice(pool)
    y = net.layer('bn', lambda: nn.BatchNorm2d(CHANNELS))(net.layer('conv', conv())(x))
    y = attention_layer(net, draw)(y) if draw.random() < 0.5 else y
    pool.append(F.relu(y + x))


def attention(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    pool.append(attention_layer(net, draw)(pool[-1]))


def attention_layer(net: RandomNet, draw: random.Random) -> nn.Module:
    kind = draw.choice((SE, ECA, SRM, GC, BAM))
    return net.layer('attention', lambda: kind(CHANNELS))


def add_in_place(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x, y = draw.choice(pool), draw.choice(pool)
    x += y.clone()


def add_to_a_slice(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x, y, half = draw.choice(pool), draw.choice(pool), CHANNELS // 2
    part = x[:, :half]
    part += y[:, half:].clone()


def write_a_slice(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x, y = draw.choice(pool).clone(), draw.choice(pool)
    x[:, 2:4] = y[:, :2]
    pool.append(x)


def swap_halves(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    first, second = draw.choice(pool).chunk(2, dim=1)
    other = draw.choice(pool)[:, CHANNELS // 2 :]
    pool.append(torch.cat([second, other if draw.random() < 0.5 else first], dim=1))


def narrow(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    both = torch.cat([draw.choice(pool), draw.choice(pool)], dim=1)
    if draw.random() < 0.5:
        both = net.layer('bn', lambda: nn.BatchNorm2d(2 * CHANNELS))(both)
    groups = draw.choice((1, 2))
    pool.append(net.layer('narrow', lambda: nn.Conv2d(2 * CHANNELS, CHANNELS, 1, groups=groups))(both))


def shared_conv(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    layer = net.layer('shared', conv(), shared=True)
    pool.append(layer(draw.choice(pool)))
    if draw.random() < 0.5:
        pool.append(layer(draw.choice(pool)))


def tied_memory(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    first, second = net.layer('a', conv(bias=False)), net.layer('b', conv(bias=False))
    second.weight.data = first.weight.data
    pool.append(second(first(draw.choice(pool))))


def computed_weight(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    weight = net.layer('conv', conv(size=1)).weight
    pool.append(F.conv2d(draw.choice(pool), weight / weight.norm()))


def gate(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x, y = draw.choice(pool), draw.choice(pool)
    pool.append(x * net.layer('gate', conv(size=1))(y.mean(dim=(2, 3), keepdim=True)).sigmoid())


def activation(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    pool.append(draw.choice((F.silu, F.relu6, F.gelu, torch.tanh, torch.abs, F.leaky_relu))(draw.choice(pool)))


def attention_behind_an_activation(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x = F.silu(net.layer('conv', conv())(draw.choice(pool)))
    pool.append(net.layer('after', conv())(attention_layer(net, draw)(x)))


def arithmetic(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x, y = draw.choice(pool), draw.choice(pool)
    pool.append(draw.choice((1 - x, x + 1, x / 3, 0.5 * x, x * y, x - y, -x, sum([x, y]), torch.maximum(x, y))))


def views(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x = draw.choice(pool)
    n, c, h, w = x.shape
    options = (
        lambda: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(n, c, h, w),
        lambda: x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w),  # a channel shuffle
        lambda: x.roll(1, dims=1),
        lambda: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
        lambda: F.avg_pool2d(x, 3, 1, 1),
        lambda: F.interpolate(F.adaptive_avg_pool2d(x, 3), scale_factor=2),
        lambda: x.expand(2, n, c, h, w)[0],
    )
    pool.append(draw.choice(options)())


def parameters(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    weight = net.layer('norm', lambda: nn.GroupNorm(1, CHANNELS)).weight
    x = draw.choice(pool)
    pool.append(x * weight.view(1, -1, 1, 1) if draw.random() < 0.5 else x + weight[:, None, None])


def other_norm(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    norm = draw.choice((lambda: nn.GroupNorm(2, CHANNELS), lambda: nn.InstanceNorm2d(CHANNELS)))
    pool.append(net.layer('norm', norm)(draw.choice(pool)))


def read_a_value(net: RandomNet, pool: list[Tensor], draw: random.Random) -> None:
    x = draw.choice(pool)
    pool.append(x / float(x.detach().abs().max()))


WEIGHTED: dict[Step, int] = {
    conv_norm_act: 6, residual: 6, attention: 1, add_in_place: 1, add_to_a_slice: 1, write_a_slice: 1, swap_halves: 1,
    narrow: 2, shared_conv: 1, tied_memory: 1, computed_weight: 1, gate: 1, activation: 1,
    attention_behind_an_activation: 1, arithmetic: 1, views: 2, parameters: 1, other_norm: 1, read_a_value: 1,
}  # fmt: skip
STEPS, WEIGHTS = list(WEIGHTED), list(WEIGHTED.values())
