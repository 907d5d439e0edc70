"""What holds an attention where a net has neither a slot nor an nn.Sequential for it."""

from typing import Any

from torch import Tensor, nn


class Attended(nn.Module):
    """attention(module(x)).

    Its state has the keys `module.*` and `attn.*`; it also loads those of the module alone. Other attributes are the
    module's, as timm reads and sets them (out_channels, grad_checkpointing).
    """

    wraps = 'module'  # the child that a plain net has in the place of this module: read by warm_start

    def __init__(self, module: nn.Module, attn: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.attn = attn
        self.training = module.training

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.module(x))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ('module', 'attn') or name.startswith('__'):  # while a copy is made, and how it is made
                raise
            return getattr(self.module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        inner = self.__dict__.get('_modules', {}).get('module')
        own = name in self.__dict__ or name in ('module', 'attn', 'forward')
        if inner is None or own or not hasattr(inner, name):
            super().__setattr__(name, value)
        else:
            setattr(inner, name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """The module's own keys get `module.` in front, unless the state is one of this class."""
        keys = [key for key in state_dict if key.startswith(prefix)]
        if not any(key.startswith(f'{prefix}module.') for key in keys):
            plain = self.module.state_dict()
            own = {f'{prefix}attn.{key}' for key in self.attn.state_dict() if f'attn.{key}' not in plain}
            for key in keys:
                if key not in own:
                    state_dict[f'{prefix}module.{key[len(prefix) :]}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


class AttendedDrop(Attended):
    """drop_path(attention(x)): the attention sees the branch, not what is dropped of it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.attn(x))


class ChannelsLast(nn.Module):
    """The attention of a map of shape (N, H, W, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.training = layer.training

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
