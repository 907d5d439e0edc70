"""The formulas of the papers and the counts of their parameters, written out once more, slowly, in float64.

Every row of ATTENTION has one entry in REFERENCE and one in PARAMETERS: a row without fails test_attention.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]


def bn(x: Tensor, state: State, name: str, eps: float = 1e-5) -> Tensor:
    """Batch norm with running statistics over the channels of (N, C) or (N, C, H, W)."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    mean, var = (state[f'{name}.running_{k}'].view(shape) for k in ('mean', 'var'))
    weight, bias = (state[f'{name}.{k}'].view(shape) for k in ('weight', 'bias'))
    return (x - mean) / torch.sqrt(var + eps) * weight + bias


def linear(x: Tensor, state: State, name: str) -> Tensor:
    y = torch.einsum('nc,oc->no', x, state[f'{name}.weight'])
    return y + state[f'{name}.bias'] if f'{name}.bias' in state else y


def conv(x: Tensor, state: State, name: str, dilation: int = 1) -> Tensor:
    """A convolution that keeps the map's size, as a sum over the shifted maps."""
    weight = state[f'{name}.weight']
    k = weight.shape[2]
    reach = dilation * (k // 2)
    padded = torch.nn.functional.pad(x, (reach,) * 4)
    h, w = x.shape[2:]
    y = torch.zeros(x.shape[0], weight.shape[0], h, w, dtype=x.dtype)
    for i in range(k):
        for j in range(k):
            shifted = padded[:, :, i * dilation : i * dilation + h, j * dilation : j * dilation + w]
            y += torch.einsum('nchw,oc->nohw', shifted, weight[:, :, i, j])
    return y + state[f'{name}.bias'].view(1, -1, 1, 1) if f'{name}.bias' in state else y


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def pooled(x: Tensor) -> Tensor:
    return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


def se(x: Tensor, state: State) -> Tensor:
    """SENet Eq. 2 to 4, arXiv:1709.01507."""
    gate = sigmoid(linear(relu(linear(pooled(x), state, 'fc1')), state, 'fc2'))
    return x * gate[..., None, None]


def cbam(x: Tensor, state: State) -> Tensor:
    """CBAM Eq. 1 to 3 and the authors' code, https://github.com/Jongchan/attention-module: (max, mean), BN."""

    def mlp(v: Tensor) -> Tensor:
        return linear(relu(linear(v, state, 'channel.fc1')), state, 'channel.fc2')

    x = x * sigmoid(mlp(pooled(x)) + mlp(x.flatten(2).max(2).values))[..., None, None]
    both = torch.stack([x.max(1).values, x.sum(1) / x.shape[1]], dim=1)
    return x * sigmoid(bn(conv(both, state, 'spatial.conv'), state, 'spatial.bn'))


def eca(x: Tensor, state: State) -> Tensor:
    """ECA-Net, arXiv:1910.03151: each channel's gate from the k channels around it, zeros beyond the ends."""
    weight = state['conv.weight'].flatten()
    half = len(weight) // 2
    y = torch.nn.functional.pad(pooled(x), (half, half))
    gate = sum(weight[i] * y[:, i : i + x.shape[1]] for i in range(len(weight)))
    return x * sigmoid(gate)[..., None, None]


def gc(x: Tensor, state: State) -> Tensor:
    """GCNet Eq. 5, arXiv:1904.11492."""
    scores = conv(x, state, 'conv_mask').flatten(1).exp()
    context = torch.einsum('np,ncp->nc', scores / scores.sum(1, keepdim=True), x.flatten(2))
    hidden = linear(context, state, 'fc1')
    centred = hidden - hidden.mean(1, keepdim=True)
    normed = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-5)
    hidden = relu(normed * state['norm.weight'] + state['norm.bias'])
    return x + linear(hidden, state, 'fc2')[..., None, None]


def srm(x: Tensor, state: State) -> Tensor:
    """SRM, arXiv:1903.10829: unbiased variance plus 1e-5 under the root, as in the authors' code."""
    mean = pooled(x)
    n = x.shape[2] * x.shape[3]
    var = ((x - mean[..., None, None]) ** 2).sum((2, 3)) / max(n - 1, 1)
    z = state['cfc'][:, 0] * mean + state['cfc'][:, 1] * torch.sqrt(var + 1e-5)
    return x * sigmoid(bn(z, state, 'bn'))[..., None, None]


def simam(x: Tensor, state: State, e_lambda: float = 1e-4) -> Tensor:
    """SimAM Eq. 5 and 6: 1 / e* with mu and sigma^2 shared by a channel's neurons; over M - 1 as in its Figure 3."""
    mean = pooled(x)[..., None, None]
    n = x.shape[2] * x.shape[3]
    var = ((x - mean) ** 2).sum((2, 3), keepdim=True) / max(n - 1, 1)
    energy = 4 * (var + e_lambda) / ((x - mean) ** 2 + 2 * var + 2 * e_lambda)
    return x * sigmoid(1 / energy)


def bam_maps(x: Tensor, state: State, inner: bool) -> tuple[Tensor, Tensor]:
    def inner_bn(v: Tensor, name: str) -> Tensor:
        return bn(v, state, name) if inner else v

    def end_bn(v: Tensor, name: str) -> Tensor:
        return v if inner else bn(v, state, name)

    channel = relu(inner_bn(linear(pooled(x), state, 'channel.fc1'), 'channel.bn1'))
    channel = end_bn(linear(channel, state, 'channel.fc2'), 'channel.bn2')
    spatial = relu(inner_bn(conv(x, state, 'spatial.conv0'), 'spatial.bn0'))
    spatial = relu(inner_bn(conv(spatial, state, 'spatial.conv1', dilation=4), 'spatial.bn1'))
    spatial = relu(inner_bn(conv(spatial, state, 'spatial.conv2', dilation=4), 'spatial.bn2'))
    return channel[..., None, None], end_bn(conv(spatial, state, 'spatial.conv3'), 'spatial.bn3')


def bam(x: Tensor, state: State) -> Tensor:
    """BAM Eq. 1 to 4, arXiv:1807.06514 and its journal version: the sum of the branches."""
    channel, spatial = bam_maps(x, state, inner=False)
    return x + x * sigmoid(channel + spatial)


def bam_mul(x: Tensor, state: State) -> Tensor:
    """The authors' code, https://github.com/Jongchan/attention-module: the product, norms behind hidden layers."""
    channel, spatial = bam_maps(x, state, inner=True)
    return x + x * sigmoid(channel * spatial)


REFERENCE: dict[str, Callable[[Tensor, State], Tensor]] = {
    'se': se,
    'cbam': cbam,
    'eca': eca,
    'gc': gc,
    'srm': srm,
    'simam': simam,
    'bam': bam,
    'bam_mul': bam_mul,
    'bamc': bam,
}


def _eca_kernel(c: int) -> int:
    t = int(abs((math.log2(c) + 1) / 2))
    return t if t % 2 else t + 1


def _bam_parameters(c: int) -> int:
    h = max(1, c // 16)
    return 3 * c * h + 18 * h * h + 3 * c + 5 * h + 3


def _bam_mul_parameters(c: int) -> int:
    h = max(1, c // 16)
    return 3 * c * h + 18 * h * h + c + 13 * h + 1


# Trainable parameters by the number of channels, with the default reduction of 16.
PARAMETERS: dict[str, Callable[[int], int]] = {
    'se': lambda c: 2 * c * max(1, c // 16),
    'cbam': lambda c: 2 * c * max(1, c // 16) + c + max(1, c // 16) + 98 + 2,
    'eca': _eca_kernel,
    'gc': lambda c: 2 * c * max(2, c // 16) + 2 * c + 3 * max(2, c // 16) + 1,
    'srm': lambda c: 4 * c,
    'simam': lambda c: 0,
    'bam': _bam_parameters,
    'bam_mul': _bam_mul_parameters,
    'bamc': _bam_parameters,
}
