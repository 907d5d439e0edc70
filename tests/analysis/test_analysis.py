"""Attention maps, stages, channel profiles and costs; hooks that leave a net as it was."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from timm_attn import ATTENTION, analysis, fuse
from timm_attn.analysis.hooks import find_layers, hooked, observed, record
from timm_attn.attach import attention_layers
from timm_attn.attention import GC
from timm_attn.ops import simam_weights
from timm_attn.paper import counting

# every attention once, and every backbone that is not too large for a test
SAMPLE = [f'cifar_resnet20_{a}' for a in ATTENTION] + [
    'resnet18_bam',
    'mobilenetv2_cbam',
    'cifar_preresnet20_srm',
    'cifar_mobilenetv2_simam',
    'cifar_densenet100_12_bam',
    'squeezenet1_1_bam_mul',
]


def build(name: str, **kwargs: Any) -> nn.Module:
    """A net of which no parameter and no buffer of a norm has its initial value, so that every gate varies."""
    model = timm.create_model(name, **kwargs).double().eval()
    for value in model.state_dict().values():
        if value.dim() > 1:
            value.copy_(torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    return model


def batches(model: nn.Module, n: int = 2, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    dtype = next(model.parameters()).dtype
    for _ in range(n):
        yield torch.randn(4, 3, size, size, dtype=dtype), torch.tensor([0, 1, 2, 1])


def everything_of(model: nn.Module) -> dict[str, Any]:
    """What an analysis may not change: values, modes, gradients, hooks."""
    state = {f'state {k}': v.clone() for k, v in model.state_dict().items()}
    for path, module in model.named_modules():
        state[f'mode {path}'] = module.training
        state[f'hooks {path}'] = len(module._forward_hooks) + len(module._forward_pre_hooks)
        state[f'attributes {path}'] = sorted(vars(module))
    for path, parameter in model.named_parameters():
        state[f'grad {path}'] = parameter.grad if parameter.grad is None else parameter.grad.clone()
        state[f'requires_grad {path}'] = parameter.requires_grad
    return state


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    assert now.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(now[key], value) if isinstance(value, Tensor) else now[key] == value, key


# Every function of the package, called on a net with attention.
CALLS: dict[str, Callable[[nn.Module], object]] = {
    'attention_maps': lambda m: analysis.attention_maps(m, next(batches(m))[0]),
    'branch_maps': lambda m: analysis.branch_maps(m, next(batches(m))[0]),
    'grad_cam after': lambda m: analysis.grad_cam(m, next(batches(m))[0], 'layer2'),
    'grad_cam before': lambda m: analysis.grad_cam(m, next(batches(m))[0], 'layer2', place='before', classes=1),
    'grad_cam weights': lambda m: analysis.grad_cam(m, next(batches(m))[0], 'layer1.3', place='weights'),
    'channel_profiles': lambda m: analysis.channel_profiles(m, batches(m), 3),
    'class_selectivity': lambda m: analysis.class_selectivity(m, batches(m), 3),
    'stage_views': lambda m: analysis.stage_views(m, next(batches(m))[0]),
    'cost_report': lambda m: analysis.cost_report(m, next(batches(m))[0], repeats=1),
}


@pytest.mark.parametrize('call', CALLS)
def test_the_net_stays_as_it_was(call: str) -> None:
    model = timm.create_model('cifar_resnet20_bam')
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    model.train()
    model.layer2.eval()  # modes and gradients of all kinds
    model.fc.weight.requires_grad_(False)
    model.conv1.weight.grad = None
    before = everything_of(model)
    CALLS[call](model)
    assert_same(everything_of(model), before)


@pytest.mark.parametrize('call', CALLS)
def test_the_net_stays_as_it_was_after_an_exception(call: str) -> None:
    model = timm.create_model('cifar_resnet20_bam').train()
    broken = model.layer3[2].conv2
    broken.forward = lambda x: 1 / 0
    before = everything_of(model)
    with pytest.raises(ZeroDivisionError):
        CALLS[call](model)
    assert_same(everything_of(model), before)


ON_IMAGES: dict[str, Callable[[nn.Module, Any], object]] = {
    'attention_maps': analysis.attention_maps,
    'branch_maps': analysis.branch_maps,
    'grad_cam': lambda m, x: analysis.grad_cam(m, x, 'layer2'),
    'channel_profiles': lambda m, x: analysis.channel_profiles(m, [(x, torch.tensor([0, 1]))], 2),
    'class_selectivity': lambda m, x: analysis.class_selectivity(m, [(x, torch.tensor([0, 1]))], 2),
    'stage_views': analysis.stage_views,
    'cost_report': lambda m, x: analysis.cost_report(m, x, repeats=1),
}
_NO_BATCH = r'The images must be a tensor of shape \(N, 3, H, W\), but got '
NOT_IMAGES = {
    'one image': (torch.zeros(3, 32, 32), _NO_BATCH + r'a tensor of shape \(3, 32, 32\) and torch.float32\.'),
    'no pixels': (torch.zeros(2, 3, 0, 32), _NO_BATCH + r'a tensor of shape \(2, 3, 0, 32\)'),
    'a list': ([1], _NO_BATCH + r'list\.'),
    'other dtype': (torch.zeros(2, 3, 32, 32).double(), 'Net is torch.float32 on cpu, the images are torch.float64'),
    'other device': (torch.zeros(2, 3, 32, 32, device='meta'), 'on cpu, the images are torch.float32 on meta: '),
}


@pytest.mark.parametrize('images', NOT_IMAGES)
@pytest.mark.parametrize('call', ON_IMAGES)
def test_images_that_the_net_does_not_take(call: str, images: str) -> None:
    given, message = NOT_IMAGES[images]
    with pytest.raises(ValueError, match=message):
        ON_IMAGES[call](timm.create_model('cifar_resnet20_bam'), given)


def test_a_net_may_convert_its_images_itself() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = timm.create_model('cifar_resnet20_se')

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x / 255)

    assert len(analysis.attention_maps(Raw(), torch.randint(255, (2, 3, 32, 32), dtype=torch.uint8))) == 9


def test_errors_of_a_net_on_right_images_are_its_own() -> None:
    with pytest.raises(RuntimeError, match='expected input.* to have 3 channels, but got 1') as error:
        analysis.attention_maps(timm.create_model('cifar_resnet20_se'), torch.zeros(2, 1, 32, 32))
    assert type(error.value) is RuntimeError


def test_hooks_are_gone_after_an_exception() -> None:
    model = timm.create_model('cifar_resnet20_se')
    layers = attention_layers(model)
    with pytest.raises(ZeroDivisionError), record(layers, lambda layer, x: 1 / 0):
        model(torch.randn(1, 3, 28, 28))
    assert not any(layer._forward_pre_hooks for layer in layers.values())


@pytest.mark.parametrize(
    'make, what',
    [
        (lambda m: torch.jit.script(m), 'scripted'),
        (lambda m: torch.compile(m), 'compiled'),
        (lambda m: setattr(m, 'layer1', torch.compile(m.layer1)) or m, 'compiled'),
        (lambda m: m.compile() or m, 'compiled'),
        (fuse, 'fused'),
    ],
)
def test_a_scripted_or_compiled_net_is_refused(make: Callable[[nn.Module], nn.Module], what: str) -> None:
    model = make(timm.create_model('cifar_resnet20_bam').eval())
    for call in CALLS.values():
        with pytest.raises(ValueError, match=f'do not run in a {what} net: analyse the net before that'):
            call(model)


def test_maps_are_what_the_layers_saw() -> None:
    model = timm.create_model('cifar_resnet20_simam').eval()
    x = torch.randn(2, 3, 28, 28)
    maps = analysis.attention_maps(model, x)
    assert list(maps) == list(attention_layers(model))
    stem = model.act1(model.bn1(model.conv1(x)))
    block = model.layer1[0]
    seen = block.conv2(block.act1(block.bn1(block.conv1(stem))))
    torch.testing.assert_close(maps['layer1.0.conv_attn'], simam_weights(seen, 1e-4))
    assert maps['layer3.2.conv_attn'].shape == (2, 64, 7, 7)


@pytest.mark.parametrize('name', SAMPLE)
def test_the_factor_is_output_over_input(name: str) -> None:
    """GC's is its term, output minus input."""
    model = build(name)
    layers = attention_layers(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        seen[path] = x.clone(), y.clone()

    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    maps = analysis.attention_maps(model, images)
    with torch.no_grad(), hooked(layers, after=keep):
        model(images)
    assert list(maps) == list(seen) and maps
    varied = 0.0
    for path, (x, y) in seen.items():
        factor = maps[path].expand_as(x)
        if isinstance(layers[path], GC):
            torch.testing.assert_close(factor, y - x, rtol=0, atol=1e-6 * float(y.abs().max()))
        else:
            there = x.abs() > 1e-3
            assert there.any()
            torch.testing.assert_close(factor[there], (y / x)[there], rtol=0, atol=1e-6)
        varied = max(varied, float(factor.std()))
    assert varied > 1e-3  # a constant would prove little


@pytest.mark.parametrize('name', ['cifar_resnet20_bam', 'cifar_resnet20_bam_mul', 'cifar_resnet20_cbam'])
def test_the_branches_make_the_factor(name: str) -> None:
    model = build(name)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    factors = analysis.attention_maps(model, images)
    branches = analysis.branch_maps(model, images)
    assert list(branches) == list(factors)
    joined: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        'cifar_resnet20_bam': lambda channel, spatial: 1 + (channel + spatial).sigmoid(),
        'cifar_resnet20_bam_mul': lambda channel, spatial: 1 + (channel * spatial).sigmoid(),
        'cifar_resnet20_cbam': lambda channel, spatial: channel * spatial,
    }
    for path, factor in factors.items():
        channel, spatial = branches[path]['channel'], branches[path]['spatial']
        n, c, h, w = factor.shape
        assert channel.shape == (n, c, 1, 1) and spatial.shape == (n, 1, h, w)
        torch.testing.assert_close(joined[name](channel, spatial), factor)


def test_a_branch_that_a_layer_lacks_is_left_out() -> None:
    model = timm.create_model('cifar_resnet20_bam', attn_kwargs=dict(branches='spatial'))
    branches = analysis.branch_maps(model, torch.randn(1, 3, 32, 32))
    assert all(list(of_layer) == ['spatial'] for of_layer in branches.values())
    with pytest.raises(ValueError, match=r'CifarResNet has no attention layer with two branches \(BAM or CBAM\)'):
        analysis.branch_maps(timm.create_model('cifar_resnet20_se'), torch.randn(1, 3, 32, 32))


def test_maps_and_profiles_of_a_factor() -> None:
    factor = torch.arange(24.0).view(1, 2, 3, 4)
    assert analysis.spatial_map(factor)[0, 0].tolist() == [6, 7, 8, 9]
    assert analysis.channel_profile(factor).tolist() == [[5.5, 17.5]]
    resized = analysis.resized(torch.tensor([[[0.0, 4.0], [0.0, 4.0]]]), (4, 4))
    assert resized.shape == (1, 4, 4) and resized[0, 0].tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize('call', ['attention_maps', 'branch_maps', 'channel_profiles'])
def test_a_model_without_attention(call: str) -> None:
    with pytest.raises(ValueError, match=r'CifarResNet has no attention layers\.'):
        CALLS[call](timm.create_model('cifar_resnet20'))


def test_an_unknown_layer() -> None:
    model = timm.create_model('cifar_resnet20')
    everything = ', '.join(path for path, _ in model.named_modules() if path)
    with pytest.raises(ValueError) as error:
        find_layers(model, ['layer1', 'layer9'])
    assert str(error.value) == f"CifarResNet has no layer 'layer9'; its layers are {everything}."


def test_stages() -> None:
    model = timm.create_model('cifar_resnet20_bam')
    images = torch.randn(2, 3, 32, 32)
    views = analysis.stage_views(model, images)
    assert [v.path for v in views] == ['act1', 'layer1', 'layer2', 'layer3']
    assert [v.layer for v in views] == [None, 'layer1.3', 'layer2.3', None]
    stage = views[1]
    torch.testing.assert_close(stage.after, stage.features)  # BAM closes the stage
    torch.testing.assert_close(stage.before * stage.factor, stage.after)
    features = timm.create_model('cifar_resnet20_bam', features_only=True).eval()
    features.load_state_dict({f'{k}': v for k, v in model.state_dict().items()}, strict=False)
    with torch.no_grad():
        for view, expected in zip(views, features(images), strict=True):
            torch.testing.assert_close(view.features, expected)
    se = timm.create_model('cifar_resnet20_se')
    assert analysis.stage_views(se, images)[1].layer == 'layer1.2.block_attn'
    with pytest.raises(ValueError, match='Sequential has no feature_info that names its stages'):
        analysis.stage_views(nn.Sequential(nn.Conv2d(3, 4, 1)), images)


def test_channel_profiles_are_the_mean_gates_of_each_class() -> None:
    model = build('cifar_resnet20_se')
    images = torch.randn(12, 3, 32, 32, dtype=torch.float64)
    labels = torch.arange(12) % 3
    profiles = analysis.channel_profiles(model, zip(images.split(5), labels.split(5), strict=True), 4)
    gates = analysis.attention_maps(model, images)
    for path, profile in profiles.items():
        assert profile.counts.tolist() == [4, 4, 4, 0]
        for label in range(3):
            torch.testing.assert_close(profile.means[label], gates[path][labels == label].mean(dim=0).flatten())
        assert profile.means[3].isnan().all()


def test_channel_profiles_refuse() -> None:
    model = timm.create_model('cifar_resnet20_se')
    with pytest.raises(ValueError, match='Label 2 is out of range: there are 2 classes'):
        analysis.channel_profiles(model, batches(model), 2)
    with pytest.raises(ValueError, match='There are no images to take the means of'):
        analysis.channel_profiles(model, [], 2)


@pytest.mark.parametrize('name', ['cifar_resnet20_se', 'cifar_resnet20_simam', 'resnet18_bam', 'mobilenetv2_eca'])
def test_cost_counts_what_the_papers_count(name: str) -> None:
    model = timm.create_model(name)
    *layers, net = analysis.cost_report(model, torch.randn(1, 3, 32, 32), repeats=1)
    assert [c.path for c in layers] == list(attention_layers(model)) and net.path == '(whole net)'
    assert net.params == counting.params(model) and net.macs == counting.macs(model, (3, 32, 32))
    found = attention_layers(model)
    for cost in layers:
        assert cost.kind == type(found[cost.path]).__name__ and cost.params == counting.params(found[cost.path])
        if cost.params:  # counting.macs asks a parameter for its device
            assert cost.macs == counting.macs(found[cost.path], cost.shape[1:])
        size = 4 * torch.Size(cost.shape).numel()
        assert cost.saved_bytes >= size and cost.moved_bytes >= 2 * size and cost.milliseconds > 0
    assert net.saved_bytes > sum(c.saved_bytes for c in layers) and net.milliseconds > layers[0].milliseconds


def test_cost_of_operations_that_can_be_counted_by_hand() -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()  # reads and writes a map, saves its result
            gate = y.mean(dim=(2, 3), keepdim=True).expand_as(y)  # reads a map, writes 6 numbers
            y = y * gate  # reads a map and 6 numbers, writes a map, saves both
            return y.view(2, -1, 4, 5).transpose(2, 3)  # moves nothing

    net = nn.Sequential(Layer())
    layer, whole = analysis.cost_report(net, torch.randn(2, 3, 4, 5), ['0'], repeats=1)
    assert layer.kind == 'Layer' and layer.shape == (2, 3, 4, 5)
    assert (layer.params, layer.macs) == (0, 0)
    size, gates = 4 * 120, 4 * 6
    assert layer.moved_bytes == whole.moved_bytes == 5 * size + 2 * gates
    assert layer.saved_bytes == whole.saved_bytes == size + gates


def test_saved_bytes_leave_the_parameters_out() -> None:
    conv = analysis.cost_report(nn.Sequential(nn.Conv2d(3, 50, 1)), torch.randn(2, 3, 4, 5), ['0'], repeats=1)[0]
    assert conv.saved_bytes == 4 * 120 and conv.params == 200 and conv.macs == 2 * 20 * 3 * 50


def test_simam_saves_what_its_formula_keeps() -> None:
    """Four copies of the map in the formula as torch runs it; fewer with a backward pass of its own."""
    model = timm.create_model('cifar_resnet20_simam')
    cost = analysis.cost_report(model, torch.randn(1, 3, 32, 32), ['layer1.0.conv_attn'], repeats=1)[0]
    assert 1 <= cost.saved_bytes / (4 * 16 * 32 * 32) < 4.1


def test_cost_of_any_net() -> None:
    model = timm.create_model('regnetx_002')
    images = torch.randn(1, 3, 64, 64)
    alone, _ = analysis.cost_report(model, images, ['s1.b1'], repeats=1)
    outer, *_ = analysis.cost_report(model, images, ['s1.b1', 's1.b1.conv1'], repeats=1)
    assert (outer.path, outer.macs, outer.moved_bytes) == ('s1.b1', alone.macs, alone.moved_bytes)
    assert [c.path for c in analysis.cost_report(model, images, repeats=1)] == [
        'stem',
        's1',
        's2',
        's3',
        's4',
        '(whole net)',
    ]
    assert analysis.cost_report(model, images, ['s1.b1.conv1'], repeats=1)[0].kind == 'ConvNormAct'
    with pytest.raises(ValueError, match="RegNet has no layer 's9'; its layers are stem, stem.conv"):
        analysis.cost_report(model, images, ['s9'])
    with pytest.raises(ValueError, match='repeats must be positive, but got 0'):
        analysis.cost_report(model, images, repeats=0)
    with pytest.raises(ValueError, match='The cost of a batch needs at least one image, but got none'):
        analysis.cost_report(model, images[:0])


def test_observed_gives_each_module_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with observed(model):
        assert not model[0].training
    assert model[0].training and not model[1].training and model.training


def test_maps_do_not_depend_on_the_mode() -> None:
    model = build('cifar_resnet20_bam')
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = analysis.attention_maps(model, images)
    in_training = analysis.attention_maps(copy.deepcopy(model).train(), images)
    for path, factor in expected.items():
        assert torch.equal(factor, in_training[path])
