"""The layers of a fused net."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn import ops
from timm_attn.attention import AttentionLayer
from timm_attn.ops.eager import is_watched


class FusedAttention(nn.Module):
    """An attention layer and the rest of its block: clamp(layer(x) + base), which may overwrite x."""

    def __init__(self, layer: AttentionLayer) -> None:
        super().__init__()
        self.layer = layer
        self.ceiling: float | None = None

    def forward(self, x: Tensor, base: Tensor | None = None) -> Tensor:
        terms: list[Tensor] = []
        if base is not None:
            terms.append(base)
        return self.layer.last_pass(x, terms, self.ceiling)

    def extra_repr(self) -> str:
        return f'ceiling={self.ceiling}'


class FusedSimAM(nn.Module):
    """SimAM, the norm behind it, which is an affine function per channel in evaluation, and the rest of the block."""

    factor: Tensor
    shift: Tensor

    def __init__(self, e_lambda: float, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.e_lambda = e_lambda
        self.register_buffer('factor', factor[None, :, None, None])
        self.register_buffer('shift', shift[None, :, None, None])
        self.ceiling: float | None = None

    def forward(self, x: Tensor, base: Tensor | None = None) -> Tensor:
        terms = [self.shift]
        if base is not None:
            terms.append(base)
        return ops.simam_last_pass(x, self.e_lambda, self.factor, terms, self.ceiling)

    def extra_repr(self) -> str:
        return f'e_lambda={self.e_lambda:g}, ceiling={self.ceiling}'


class ChannelsLastMaxPool(nn.Module):
    """A max-pool of a contiguous map by way of channels_last, for which torch's on the CPU is vectorised."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and x.device.type == 'cpu' and ops.has_last_pass(x) and x.is_contiguous():
            y: Tensor = self.pool(x.contiguous(memory_format=torch.channels_last))
            return y.contiguous()
        pooled: Tensor = self.pool(x)
        return pooled


class PackedConv2d(nn.Module):
    """A convolution whose weight, on the CPU, is laid out for oneDNN once and not at every call.

    The second copy of the weight is made when the weight changes (but through `.data`, which tells nobody) or the size
    of the map; it is no part of the state, and goes with no copy of the net. The map that comes out is channels_last.
    The operators are those that torch.compile puts into frozen nets.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self._packed: Any = None  # (what it was made of, the weight, its storage, whose address is not used again then)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and self._can_pack(x):
            return self._forward_packed(x)
        y: Tensor = self.conv(x)
        return y

    @torch.jit.unused
    def _can_pack(self, x: Tensor) -> bool:
        if type(x) is not Tensor or x.device.type != 'cpu' or not ops.has_last_pass(x) or is_watched(x):
            return False
        if x.shape[1] != self.conv.in_channels or self.conv.weight.is_inference():  # torch's error; changes unseen
            return False
        floats = x.dtype == self.conv.weight.dtype == torch.float32 and not torch.is_autocast_enabled('cpu')
        return floats and bool(torch.backends.mkldnn.enabled) and _has_onednn()

    @torch.jit.unused
    def _forward_packed(self, x: Tensor) -> Tensor:
        conv: Any = self.conv
        geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        now = (x.shape, conv.weight.data_ptr(), conv.weight._version)
        made_of, packed, _ = self._packed or (None, None, None)
        if made_of != now:
            packed = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *geometry, list(x.shape))
            self._packed = (now, packed, conv.weight.detach())
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, packed, conv.bias, *geometry, 'none', [], '')
        return y

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_packed': None}


@cache
def _has_onednn() -> bool:
    operators = ('_reorder_convolution_weight', '_convolution_pointwise')
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)
