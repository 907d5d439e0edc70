"""timm's residual blocks with attention slots: the same modules and keys, an explicit forward.

The slots are declared for type checkers only: TorchScript reads a class's annotations and rejects optional modules.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from timm.layers import BatchNormAct2d, Conv2dSame, SyncBatchNormAct
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.densenet import DenseTransition
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from timm_attn.attention.layers import BatchNorm

# Exact types, here and below: a subclass may compute something else.
CONVS = (nn.Conv2d, Conv2dSame)
# Batch norms, and whether they apply a child `act` (convert_sync_batchnorm leaves an unused one in torch's norms)
NORMS: Mapping[type[nn.Module], bool] = {
    nn.BatchNorm2d: False,
    nn.SyncBatchNorm: False,
    BatchNorm: False,
    BatchNormAct2d: True,
    SyncBatchNormAct: True,
}


class Slot(NamedTuple):
    """A place for an attention layer in a block.

    Args:
        site: the kind of attention that goes there, see attention.Site.
        attr: the attribute that holds the layer, None while the slot is empty.
        source: the convolution whose output the layer takes, or the norm that takes the layer's output.
    """

    site: str
    attr: str
    source: str


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has forward hooks or a replaced forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks or 'forward' in module.__dict__)


def has_global_hooks() -> bool:
    """Whether forward hooks of all modules are registered."""
    return bool(nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module or one inside it has forward hooks or a replaced forward, or all modules have hooks."""
    if has_global_hooks():
        return True
    modules: list[nn.Module | None] = [module]
    for one in modules:  # the list grows; no calls, as this runs in every forward pass
        if one is not None:
            if one._forward_hooks or one._forward_pre_hooks or 'forward' in one.__dict__:
                return True
            modules.extend(one._modules.values())
    return False


class AttnBasicBlock(BasicBlock):
    """timm's BasicBlock: conv1 bn1 act1 conv2 [conv_attn] bn2 [se] + shortcut, act2."""

    slots = (Slot('conv', 'conv_attn', 'conv2'), Slot('block', 'se', 'conv2'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        se: Any
        aa: Any

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.drop_block(x)
        x = self.act1(x)
        x = self.aa(x)
        x = self.conv2(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn2(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        if self.se is not None:
            x = self.se(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        x += shortcut
        return self.act2(x)


class AttnBottleneck(Bottleneck):
    """timm's Bottleneck: conv1 bn1 act1 conv2 [conv_attn] bn2 act2 conv3 bn3 [se] + shortcut, act3."""

    slots = (Slot('conv', 'conv_attn', 'conv2'), Slot('block', 'se', 'conv3'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        se: Any
        aa: Any

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.act1(x)
        x = self.conv2(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn2(x)
        x = self.drop_block(x)
        x = self.act2(x)
        x = self.aa(x)
        x = self.conv3(x)
        x = self.bn3(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        if self.se is not None:
            x = self.se(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        x += shortcut
        return self.act3(x)


class AttnDepthwiseSeparableConv(DepthwiseSeparableConv):
    """timm's block without expansion: conv_dw [conv_attn] bn1 se conv_pw bn2 [block_attn] (+ shortcut)."""

    slots = (Slot('conv', 'conv_attn', 'conv_dw'), Slot('block', 'block_attn', 'conv_pw'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        aa: Any

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.conv_s2d is not None:
            x = self.conv_s2d(x)
            x = self.bn_s2d(x)
        x = self.conv_dw(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn1(x)
        x = self.aa(x)
        x = self.se(x)
        x = self.conv_pw(x)
        x = self.bn2(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.has_skip:
            x = self.drop_path(x) + shortcut
        return x


class AttnInvertedResidual(InvertedResidual):
    """timm's MBConv: conv_pw bn1 conv_dw [conv_attn] bn2 se conv_pwl bn3 [block_attn] (+ shortcut)."""

    slots = (Slot('conv', 'conv_attn', 'conv_dw'), Slot('block', 'block_attn', 'conv_pwl'))
    if TYPE_CHECKING:
        conv_attn: nn.Module | None
        block_attn: nn.Module | None
        aa: Any

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.conv_s2d is not None:
            x = self.conv_s2d(x)
            x = self.bn_s2d(x)
        x = self.conv_pw(x)
        x = self.bn1(x)
        x = self.conv_dw(x)
        if self.conv_attn is not None:
            x = self.conv_attn(x)
        x = self.bn2(x)
        x = self.aa(x)
        x = self.se(x)
        x = self.conv_pwl(x)
        x = self.bn3(x)
        if self.block_attn is not None:
            x = self.block_attn(x)
        if self.has_skip:
            x = self.drop_path(x) + shortcut
        return x


class AttnDenseTransition(DenseTransition):
    """timm's transition of a DenseNet: [attn_in] norm conv pool [attn_out]."""

    slots = (Slot('stage', 'attn_in', 'norm'), Slot('stage', 'attn_out', 'conv'))
    if TYPE_CHECKING:
        attn_in: nn.Module | None
        attn_out: nn.Module | None
        norm: nn.Module
        conv: nn.Module
        pool: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        if self.attn_in is not None:
            x = self.attn_in(x)
        x = self.norm(x)
        x = self.conv(x)
        x = self.pool(x)
        if self.attn_out is not None:
            x = self.attn_out(x)
        return x


# timm's builders choose the block classes: attach changes those of the built blocks to these
SLOTTED: dict[type[nn.Module], type[nn.Module]] = {
    BasicBlock: AttnBasicBlock,
    Bottleneck: AttnBottleneck,
    DenseTransition: AttnDenseTransition,
    DepthwiseSeparableConv: AttnDepthwiseSeparableConv,
    InvertedResidual: AttnInvertedResidual,
}
