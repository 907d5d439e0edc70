"""A fused net and its layers.

Layers with an epilogue take `overwrite`, whether they may overwrite their input. FusedNet passes True only in eager
mode without hooks; the default is False. They test `overwrite is True`, which a tracer's proxy is not.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from timm_attn import ops
from timm_attn.attach.blocks import has_hooks
from timm_attn.attention import AttentionLayer
from timm_attn.ops.eager import has_dispatch_mode, is_recorded


class FusedNet(nn.Module):
    """What fuse returns: a graph of layers, and the attributes of the original net that timm's data tools read."""

    def __init__(self, layers: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        for name in ('num_classes', 'pretrained_cfg'):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> 'FusedNet':
        if mode:
            raise RuntimeError('A fused net is for inference, its norms are gone: train the net that it was made of.')
        return super().train(False)

    def forward(self, x: Tensor) -> Any:
        if torch.jit.is_scripting():
            return self.layers(x)
        return self.layers(x, overwrite=self._may_overwrite(x))

    @torch.jit.unused
    def _may_overwrite(self, x: Tensor) -> bool:
        """Whether no tracer, mode or hook sees the maps between the layers."""
        return ops.is_eager() and not is_recorded(x) and not has_hooks(self.layers)


class FusedAttention(nn.Module):
    """An attention layer and the rest of its block: clamp(layer(x) + base)."""

    def __init__(self, layer: AttentionLayer) -> None:
        super().__init__()
        self.layer = layer
        self.ceiling: float | None = None

    def forward(self, x: Tensor, base: Tensor | None = None, overwrite: bool = False) -> Tensor:
        terms: list[Tensor] = []
        if base is not None:
            terms.append(base)
        if not torch.jit.is_scripting():
            if overwrite is True:
                return self.layer.epilogue(ops.check_channels(x, self.layer.channels), terms, self.ceiling)
        return ops.epilogue_reference(self.layer(x), None, terms, self.ceiling)

    def extra_repr(self) -> str:
        return f'ceiling={self.ceiling}'


class FusedSimAM(nn.Module):
    """SimAM, the norm behind it as a factor and a shift per channel, and the rest of the block."""

    factor: Tensor
    shift: Tensor

    def __init__(self, e_lambda: float, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.e_lambda = e_lambda
        self.channels = len(factor)
        self.register_buffer('factor', factor[None, :, None, None])
        self.register_buffer('shift', shift[None, :, None, None])
        self.ceiling: float | None = None

    def forward(self, x: Tensor, base: Tensor | None = None, overwrite: bool = False) -> Tensor:
        x = ops.check_channels(x, self.channels)
        terms = [self.shift]
        if base is not None:
            terms.append(base)
        if not torch.jit.is_scripting():
            if overwrite is True:
                return ops.simam_epilogue(x, self.e_lambda, self.factor, terms, self.ceiling)
        return ops.simam_epilogue_reference(x, self.e_lambda, self.factor, terms, self.ceiling)

    def extra_repr(self) -> str:
        return f'e_lambda={self.e_lambda:g}, ceiling={self.ceiling}'


class FusedAddition(nn.Module):
    """The end of a block without attention: clamp(x + base)."""

    def __init__(self) -> None:
        super().__init__()
        self.ceiling: float | None = None

    def forward(self, x: Tensor, base: Tensor, overwrite: bool = False) -> Tensor:
        if not torch.jit.is_scripting():
            if overwrite is True and x.dtype == base.dtype:
                return ops.epilogue(x, None, [base], self.ceiling)
        return ops.epilogue_reference(x + base, None, [], self.ceiling)

    def extra_repr(self) -> str:
        return f'ceiling={self.ceiling}'


class ChannelsLastMaxPool(nn.Module):
    """A max-pool of a contiguous map in channels_last, for which torch's CPU kernel is vectorised."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            if type(x) is Tensor and x.device.type == 'cpu' and ops.has_fused_epilogue(x) and x.is_contiguous():
                y: Tensor = self.pool(x.contiguous(memory_format=torch.channels_last))
                return y.contiguous()
        pooled: Tensor = self.pool(x)
        return pooled


class PackedConv2d(nn.Conv2d):
    """A convolution on the CPU with its weight in oneDNN's layout, converted once and not at every call.

    The converted weight is renewed when the weight's version counter (which writes through `.data` do not change) or
    the input's size changes. It is not part of the state and is not copied with the net. The output is channels_last.
    The operators are those of torch.compile's frozen nets.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        arguments: Any = (conv.in_channels, conv.out_channels, *geometry, False, 'zeros', 'meta')
        super().__init__(*arguments)
        self.weight, self.bias = conv.weight, conv.bias
        self._packed: Any = None  # (key, converted weight, the original: kept alive, so that its address is not reused)

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            weight = self.weight
            if self._can_pack(input, weight):
                return self._forward_packed(input, weight)
        return self._conv_forward(input, self.weight, self.bias)

    @torch.jit.unused
    def _can_pack(self, x: Tensor, weight: Tensor) -> bool:
        if type(x) is not Tensor or x.device.type != 'cpu' or not ops.has_fused_epilogue(x) or has_dispatch_mode(x):
            return False
        if x.shape[1] != self.in_channels or weight.is_inference():  # torch raises the error; no version counter
            return False
        floats = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled('cpu')
        return floats and bool(torch.backends.mkldnn.enabled) and _has_onednn()

    @torch.jit.unused
    def _forward_packed(self, x: Tensor, weight: Tensor) -> Tensor:
        geometry: Any = (self.padding, self.stride, self.dilation, self.groups)
        now = (x.shape, weight.data_ptr(), weight._version)
        made_of, packed, _ = self._packed or (None, None, None)
        if made_of != now:
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
            self._packed = (now, packed, weight.detach())
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, packed, self.bias, *geometry, 'none', [], '')
        return y

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_packed': None}


@cache
def _has_onednn() -> bool:
    operators = ('_reorder_convolution_weight', '_convolution_pointwise')
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)
