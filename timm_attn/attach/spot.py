"""A place in a built net for one attention layer."""

from dataclasses import dataclass
from typing import Any

from timm.layers import DropPath
from torch import nn

from timm_attn.attach.wrappers import Attended, ChannelsLast
from timm_attn.attention import AttentionLayer

# timm's attention layers, by the names of their classes (several models have their own of one name)
_LAYERS = frozenset(
    'SEModule SqueezeExcite SqueezeExciteCl SEWithNorm EffectiveSEModule EseModule EcaModule CecaModule CbamModule '
    'LightCbamModule GatherExcite GlobalContext'.split()
)


@dataclass
class Spot:
    """A place for one layer.

    Args:
        parent, name: the module and its child that is filled, replaced or followed; None for a slot that is empty.
        channels: None where only a forward pass tells.
        channels_last: whether the map is (N, H, W, C).
        cls: the class with the slot that the parent changes to, see SLOTTED.
    """

    path: str
    parent: nn.Module
    name: str
    old: nn.Module | None
    replace: bool = False
    channels: int | None = None
    channels_last: bool = False
    cls: type[nn.Module] | None = None

    @property
    def how(self) -> str:
        """'replaced', 'slot', 'before' a drop_path, 'appended' or 'wrapped'."""
        if self.replace:
            return 'replaced'
        if self.name.startswith('drop_path') or type(self.old) is DropPath:
            return 'before'
        if self.old is None or type(self.old) is nn.Identity:
            return 'slot'
        return 'appended' if is_sequence(self.old) else 'wrapped'

    @property
    def taken_by(self) -> nn.Module | None:
        """The attention that is there already."""
        last = next(reversed(self.old._modules.values()), None) if is_sequence(self.old) and self.old else self.old
        taken = is_attention(last) or isinstance(last, Attended) or (self.cls is not None and last is not None)
        return last if taken and not self.replace else None


def is_sequence(module: nn.Module | None) -> bool:
    """Whether a module calls its children one by one, and only them."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_attention(module: Any) -> bool:
    """Whether a module is an attention layer of this package or of timm."""
    return isinstance(module, AttentionLayer | ChannelsLast) or type(module).__name__ in _LAYERS


def is_held(layer: Any) -> bool:
    """Whether a slot holds a layer."""
    return layer is not None and type(layer) is not nn.Identity


def child(module: nn.Module, path: str) -> tuple[nn.Module, str, nn.Module | None]:
    """The parent, the name and the module at a path; None where there is none."""
    parent: Any = module
    *above, name = path.split('.')
    for part in above:
        parent = getattr(parent, part, None)
    return parent, name, getattr(parent, name, None)
