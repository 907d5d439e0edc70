"""Grad-CAM against its formula by hand, against the grad-cam package, and what it refuses."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_attn.analysis import attention_maps, grad_cam, resized
from timm_attn.attach import attention_layers


class Linear(nn.Module):
    """A net whose Grad-CAM is known: logits = W mean_ij(A), so dS_k / dA_cij = W_kc / (H W)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()
        self.inplace = nn.ReLU(inplace=True)
        self.fc = nn.Linear(3, 4, bias=False)
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.fc(self.inplace(self.maps(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize('place', ['before', 'after'])
def test_a_net_whose_grad_cam_is_known(place: str) -> None:
    net, x = Linear(), torch.rand(2, 3, 4, 5)
    classes = [3, 1]
    expected = torch.einsum('nc,nchw->nhw', net.fc.weight[classes] / 20, x).relu()
    torch.testing.assert_close(grad_cam(net, x, 'maps', place=place, classes=classes), expected)
    torch.testing.assert_close(grad_cam(net, x, 'maps', place=place, classes=torch.tensor(classes)), expected)
    one = grad_cam(net, x, 'maps', place=place, classes=2)
    torch.testing.assert_close(one, torch.einsum('c,nchw->nhw', net.fc.weight[2] / 20, x).relu())


def test_an_operation_in_place_does_not_touch_the_map() -> None:
    """The ReLU works in place on what `maps` returns: without a copy the negative values would be gone."""
    net, x = Linear(), torch.randn(2, 3, 4, 5)
    weight = net.fc.weight[[0, 0]] / 20
    mask = (x > 0).float().mean(dim=(2, 3))  # of the ReLU's gradient
    expected = torch.einsum('nc,nchw->nhw', weight * mask, x).relu()
    torch.testing.assert_close(grad_cam(net, x, 'maps', classes=0), expected)
    torch.testing.assert_close(grad_cam(net, x, 'inplace', place='before', classes=0), expected)
    torch.testing.assert_close(
        grad_cam(net, x, 'inplace', classes=0), torch.einsum('nc,nchw->nhw', weight, x.relu()).relu()
    )


@pytest.mark.parametrize(
    'name, layer, place, targeted',
    [
        ('resnet18', 'layer4', 'after', 'layer4'),
        ('mobilenetv2_100', 'blocks.5', 'after', 'blocks.5'),
        ('cifar_resnet20_simam', 'layer3.1.conv_attn', 'after', 'layer3.1.conv_attn'),
        ('cifar_resnet20_simam', 'layer3.1.conv_attn', 'before', 'layer3.1.conv2'),
        ('resnet18_bam', 'layer3.2', 'before', 'layer3.1'),
    ],
)
def test_it_is_that_of_the_grad_cam_package(name: str, layer: str, place: str, targeted: str) -> None:
    package = pytest.importorskip(
        'pytorch_grad_cam', reason='the package grad-cam of the extra `test` cannot be imported', exc_type=ImportError
    )
    targets = pytest.importorskip('pytorch_grad_cam.utils.model_targets')
    model = timm.create_model(name, pretrained=name == 'cifar_resnet20_simam').eval()
    images = F.interpolate(torch.randn(4, 3, 9, 9), (96, 96), mode='bilinear')
    with torch.no_grad():
        classes = model(images).argmax(dim=1).tolist()
    theirs = package.GradCAM(model=model, target_layers=[model.get_submodule(targeted)])(
        images, [targets.ClassifierOutputTarget(c) for c in classes]
    )  # (4, 96, 96), each scaled to 0..1
    ours = resized(grad_cam(model, images, layer, place=place, classes=classes), (96, 96))
    for mine, reference in zip(ours, torch.from_numpy(theirs), strict=True):
        assert mine.any() and torch.corrcoef(torch.stack([mine, reference]).flatten(1))[0, 1] > 0.999


def test_predicted_classes_are_the_default() -> None:
    model = timm.create_model('cifar_resnet20_simam', pretrained=True).eval()
    images = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        predicted = model(images).argmax(dim=1)
    assert torch.equal(grad_cam(model, images, 'layer3'), grad_cam(model, images, 'layer3', classes=predicted))
    assert not torch.equal(
        grad_cam(model, images, 'layer3'), grad_cam(model, images, 'layer3', classes=(predicted + 1) % 10)
    )
    batch, single = grad_cam(model, images, 'layer2'), grad_cam(model, images[1:2], 'layer2')
    torch.testing.assert_close(batch[1:2], single)


def test_on_the_weights() -> None:
    """Grad-CAM of A as the weights w of y = x * w: dS/dw = x * dS/dy."""
    model = timm.create_model('cifar_resnet20_simam', pretrained=True).double().eval()
    images, layer = torch.randn(2, 3, 28, 28, dtype=torch.float64), 'layer3.2.conv_attn'
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.retain_grad()
        seen.update(x=inputs[0].detach(), y=output)

    handle = model.get_submodule(layer).register_forward_hook(keep)
    logits = model(images)
    logits[:, 7].sum().backward()
    handle.remove()
    weights = attention_maps(model, images)[layer]
    assert seen['y'].grad is not None
    importance = (seen['y'].grad * seen['x']).mean(dim=(2, 3), keepdim=True)
    expected = (importance * weights).sum(dim=1).relu()
    assert expected.any()
    torch.testing.assert_close(grad_cam(model, images, layer, place='weights', classes=7), expected)


@pytest.mark.parametrize('context', [torch.no_grad, torch.inference_mode])
def test_frozen_parameters_and_contexts_without_gradients(context: type) -> None:
    model = timm.create_model('cifar_resnet20_simam', pretrained=True).eval()
    expected = grad_cam(model, images := torch.randn(2, 3, 28, 28), 'layer2')
    model.requires_grad_(False)
    with context():
        torch.testing.assert_close(grad_cam(model, images * 1, 'layer2'), expected)
    assert expected.any()


@pytest.mark.parametrize(
    'layer, options, message',
    [
        ('layer9', {}, "CifarResNet has no layer 'layer9'; its layers are conv1, bn1, act1, layer1, layer1.0"),
        ('layer1', {'place': 'inside'}, "Unknown place 'inside': choose from before, after, weights"),
        ('layer1', {'classes': 10}, 'Class 10 is out of range: the classes are 0 to 9'),
        ('layer1', {'classes': [0, -1]}, 'Class -1 is out of range: the classes are 0 to 9'),
        ('layer1', {'classes': [0, 1, 2]}, r'There are 2 images, but classes of shape \(3,\)'),
        ('layer1', {'classes': [0.0, 1.0]}, r'Classes are numbers from 0 to 9, but got .* and torch.float32'),
        ('layer1', {'classes': True}, r'Classes are numbers from 0 to 9, but got .* and torch.bool'),
        ('fc', {}, r"Layer 'fc' has no map of shape \(N, C, H, W\) there, but a tensor of shape \(2, 10\)"),
        ('layer1', {'place': 'weights'}, "Layer 'layer1' is no attention layer but Sequential: it has no weights"),
        (
            'layer1.0.block_attn',
            {'place': 'weights'},
            "The weights of SE at 'layer1.0.block_attn' do not vary over the positions",
        ),
    ],
)
def test_bad_input(layer: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grad_cam(timm.create_model('cifar_resnet20_se'), torch.randn(2, 3, 28, 28), layer, **options)


def test_maps_that_the_logits_do_not_use() -> None:
    images = torch.rand(2, 3, 4, 5)
    with pytest.raises(ValueError, match="The logits do not depend on the map after layer 'unused'"):
        grad_cam(Linear(), images, 'unused')
    net = Linear()
    net.spare = nn.Identity()
    with pytest.raises(ValueError, match="Layer 'spare' does not run in the forward pass"):
        grad_cam(net, images, 'spare')
    with pytest.raises(ValueError, match=r'needs a classifier, whose output is a tensor of logits'):
        grad_cam(timm.create_model('cifar_resnet20', features_only=True), torch.randn(2, 3, 28, 28), 'layer1')


@pytest.mark.parametrize('name', ['cifar_resnet20_se', 'mobilenetv2_bam', 'resnet18_simam', 'squeezenet1_1_bam'])
def test_a_net_without_a_classifier(name: str) -> None:
    for model in (timm.create_model(name, num_classes=0), timm.create_model(name)):
        model.reset_classifier(0)
        model.eval()
        assert model(torch.randn(2, 3, 64, 64)).dim() == 2, 'its pooled features look like logits'
        with pytest.raises(ValueError, match=r'has no classifier \(num_classes=0\): Grad-CAM explains a logit'):
            grad_cam(model, torch.randn(2, 3, 64, 64), next(iter(attention_layers(model))))
