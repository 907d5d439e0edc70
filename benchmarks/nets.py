"""Runners of whole nets with the same trunk: inference and training steps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import get_attn
from torch import Tensor, nn

from benchmarks.formula import FORMULA
from benchmarks.measure import Runner
from benchmarks.peak_memory import MIB, peak_mib
from timm_attn.analysis.cost import saved_bytes
from timm_attn.attach import attach
from timm_attn.deploy.fuse import fuse

CLASSES = 1000


@dataclass(frozen=True)
class Variant:
    """A variant of a case.

    Args:
        build: the net, without weights.
        change: applied once it has its weights and is on its device.
    """

    build: Callable[[], nn.Module]
    change: Callable[[nn.Module], Any] | None = None


def named(name: str) -> Variant:
    """A net of the zoo or of timm."""
    return Variant(partial(timm.create_model, name))


def with_timm_layer(name: str, layer: str, **options: Any) -> Variant:
    """timm's own attention layer at the end of the residual branches of timm's ResNet."""
    layers = partial(get_attn(layer), **options)
    return Variant(lambda: timm.create_model(name, block_args=dict(attn_layer=layers)))


def with_formula(name: str, e_lambda: float) -> Variant:
    """The paper's formula where our SimAM sits."""
    return Variant(lambda: attach(timm.create_model(name), FORMULA, attn_kwargs=dict(e_lambda=e_lambda)))


def fused(name: str) -> Variant:
    """timm_attn.fuse of a net; of a plain one that folds its norms into its convolutions."""
    return Variant(partial(timm.create_model, name), fuse)


def compiled(net: Variant) -> Variant:
    """A net under torch.compile, by inductor, for the one shape it meets."""
    return Variant(net.build, partial(torch.compile, dynamic=False))


def inference_runners(
    nets: Mapping[str, Variant], batch: int, device: str, *, size: int = 224, amp: torch.dtype | None = None
) -> dict[str, Runner]:
    """The nets in evaluation mode on the same random images.

    Args:
        amp: the dtype of autocast; None computes in float32.
    """
    images = random_images(batch, size, device)

    def runner(net: Callable[[Tensor], Any]) -> Runner:
        def infer() -> Any:
            with _autocast(device, amp):
                return net(images)

        return Runner(infer if amp else partial(net, images), torch.inference_mode, batch)

    return {name: runner(net) for name, net in with_one_trunk(nets, device, training=False).items()}


def training_runners(
    nets: Mapping[str, Variant], batch: int, device: str, *, size: int = 224, amp: torch.dtype | None = None
) -> dict[str, Runner]:
    """A step of SGD with momentum, forward, backward and update, on the same random images and labels."""
    images, labels = random_images(batch, size, device), torch.randint(CLASSES, (batch,), device=device)
    loss = nn.CrossEntropyLoss()

    def runner(net: nn.Module) -> Runner:
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)

        def step() -> None:
            with _autocast(device, amp):
                error = loss(net(images), labels)
            error.backward()
            optimizer.step()
            optimizer.zero_grad()

        def forward(x: Tensor) -> Tensor:
            with _autocast(device, amp):
                return net(x)

        def memory() -> dict[str, float]:
            own = (*net.parameters(), *net.buffers())
            return {
                'saved_mib': saved_bytes(forward, images, own) / MIB,
                'peak_mib': peak_mib(step, torch.device(device)),
            }

        return Runner(step, torch.enable_grad, batch, memory)

    return {name: runner(net) for name, net in with_one_trunk(nets, device, training=True).items()}


def random_images(batch: int, size: int, device: str) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, 3, size, size, device=device)


@contextmanager
def _autocast(device: str, amp: torch.dtype | None) -> Iterator[None]:
    with torch.autocast(device, amp or torch.float32, enabled=amp is not None):
        yield


def with_one_trunk(nets: Mapping[str, Variant], device: str, training: bool) -> dict[str, Any]:
    """Builds the nets; parameters that they share with the first have the same values.

    The first is built twice: glibc places the first large tensors of a process otherwise than those that follow, and
    the net that has them is up to 10 % slower in eager torch.
    """
    torch.manual_seed(0)
    first = next(iter(nets.values())).build()
    randomise_norms(first)
    trunk = {key: value.clone() for key, value in first.state_dict().items()}
    del first
    ready: dict[str, Any] = {}
    for name, net in nets.items():
        model = net.build()
        randomise_norms(model)
        model.load_state_dict(trunk, strict=False)
        model = model.train(training).to(device)
        ready[name] = net.change(model) if net.change else model
    return ready


def randomise_norms(model: nn.Module) -> None:
    """Gives norms the statistics of a trained net, so that no fold is trivial and no branch zero."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            assert norm.running_mean is not None and norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
