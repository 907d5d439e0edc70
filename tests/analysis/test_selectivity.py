"""Class selectivity: exact on a net with known answers, in memory that does not grow with the dataset."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from timm_attn.analysis import ClassMeans, channel_profiles, class_selectivity, selectivity_index


class Known(nn.Module):
    """A stage whose five maps are known functions of a red, a green and a blue value."""

    feature_info = [dict(module='stage', num_chs=5)]

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 5, 1, bias=False)
        red, shared, dead = [1.0, 0, 0], [1.0, 1, 1], [-1.0, -1, -1]
        double, signed = [2.0, 1, 0], [1.0, -1, -1]
        self.stage.weight.data = torch.tensor([red, shared, dead, double, signed])[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x)


def coloured(classes: list[int]) -> Tensor:
    """Images (n, 3, 2, 2) of one colour channel a class."""
    images = torch.zeros(len(classes), 3, 2, 2)
    for image, channel in zip(images, classes, strict=True):
        image[channel] = 1
    return images


def test_a_net_with_known_answers() -> None:
    """Unequal classes in unequal batches. The maps: class 0 alone; equal for all; never active; 2, 1 and 0 of the
    classes; class 0 alone after the ReLU."""
    labels = [0, 1, 1, 2, 1, 0, 2, 1]
    images = coloured(labels)
    batches = [(images[:3], torch.tensor(labels[:3])), (images[3:], torch.tensor(labels[3:]))]
    index = class_selectivity(Known(), batches, 3)
    assert list(index) == ['stage'] and index['stage'].dtype == torch.float64
    assert index['stage'].tolist() == [1.0, 0.0, 0.0, (2 - 0.5) / (2 + 0.5), 1.0]
    named = class_selectivity(Known(), batches, 5, layers=['stage'])  # classes 3 and 4 have no images
    assert torch.equal(named['stage'], index['stage'])


def test_the_index_of_class_means() -> None:
    """The denominator has the mean of the other classes, not of all."""
    sums = torch.tensor([[6.0, 1.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]).double()
    means = ClassMeans(sums, torch.tensor([2, 1, 1, 0]))  # the last class has no images, and counts in no mean
    assert selectivity_index(means).tolist() == [(3 - 0.5) / (3 + 0.5), 0.0, 0.0]


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -1.0])
def test_means_that_are_no_activities(value: float) -> None:
    """A class that is NaN in all maps is not one without images; an infinite map is not one that is never active."""
    for sums in ([[1.0, 1.0], [value, 1.0], [0.0, 1.0]], [[1.0, 1.0], [value, value], [0.0, 1.0]]):
        with pytest.raises(ValueError, match='must be finite and not negative, but those of class 1 are not'):
            selectivity_index(ClassMeans(torch.tensor(sums).double(), torch.ones(3, dtype=torch.int64)))


def test_it_equals_one_pass_over_everything() -> None:
    model = timm.create_model('cifar_resnet20_bam').double().eval()
    images, labels = torch.randn(30, 3, 28, 28, dtype=torch.float64), torch.arange(30) % 7
    index = class_selectivity(model, zip(images.split(8), labels.split(8), strict=True), 7)
    assert list(index) == ['act1', 'layer1', 'layer2', 'layer3']
    with torch.no_grad():
        features = model.forward_intermediates(images, intermediates_only=True)
    for of_stage, maps in zip(index.values(), features, strict=True):
        activity = maps.relu().mean(dim=(2, 3))
        per_class = torch.stack([activity[labels == k].mean(dim=0) for k in range(7)])
        ordered = per_class.sort(dim=0, descending=True).values
        highest, rest = ordered[0], ordered[1:].mean(dim=0)
        torch.testing.assert_close(of_stage, (highest - rest) / (highest + rest))
        assert (of_stage >= 0).all() and (of_stage <= 1).all()


PER_CLASS = {'class_selectivity': class_selectivity, 'channel_profiles': channel_profiles}


@pytest.mark.parametrize('call', PER_CLASS)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_class_with_an_image_that_is_not_finite_is_named(call: str, value: float) -> None:
    """It would be missing among the classes, or have index 0."""
    model = timm.create_model('cifar_resnet20_se').eval()
    images, labels = torch.randn(6, 3, 28, 28), torch.tensor([0, 0, 1, 1, 2, 2])
    images[5] = value
    with pytest.raises(ValueError, match=r"Layer '[\w.]+' gives NaN or infinite values for an image of class 2\."):
        PER_CLASS[call](model, [(images[:4], labels[:4]), (images[4:], labels[4:])], 3)


LABELS = {  # of 3 images: what is wrong, and how it is called
    'too few': (torch.tensor([0, 1]), r'shape \(2,\) and torch.int64'),
    'too many': (torch.tensor([0, 1, 0, 1]), r'shape \(4,\)'),
    'none': (torch.tensor([], dtype=torch.int64), r'shape \(0,\)'),
    'one for all': (torch.tensor(1), r'shape \(\)'),
    'floats': (torch.tensor([0.0, 1.0, 1.0]), 'torch.float32'),
    'bools': (torch.tensor([True, False, True]), 'torch.bool'),
    'one-hot': (torch.eye(3, dtype=torch.int64), r'shape \(3, 3\)'),
    'a column': (torch.tensor([[0], [1], [1]]), r'shape \(3, 1\)'),
    'a list': ([0, 1, 1], 'list'),
    'None': (None, 'NoneType'),
}


@pytest.mark.parametrize('labels', LABELS)
@pytest.mark.parametrize('call', PER_CLASS)
def test_labels_that_are_none(call: str, labels: str) -> None:
    given, found = LABELS[labels]
    valid = 'a tensor of 3 integers from 0 to 1, one per image'
    with pytest.raises(ValueError, match=rf'The labels must be {valid}, but got .*{found}'):
        PER_CLASS[call](timm.create_model('cifar_resnet20_se'), [(torch.randn(3, 3, 28, 28), given)], 2)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integers(dtype: torch.dtype) -> None:
    images, labels = coloured([0, 1]), torch.tensor([0, 1], dtype=dtype)
    assert class_selectivity(Known(), [(images, labels)], 2)['stage'].tolist() == [1, 0, 0, 1 / 3, 1]


def resident_bytes() -> int:
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != 'linux', reason='reads the memory of this process in /proc')
def test_memory_stays_flat_over_10_000_images() -> None:
    """Keeping the activities of all images would take 42 MB here, keeping their maps 655 MB."""
    net = nn.Sequential(nn.Conv2d(3, 1024, 1), nn.ReLU())
    memory = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(100):
            memory.append(resident_bytes())
            yield torch.randn(100, 3, 4, 4), torch.randint(10, (100,))

    index = class_selectivity(net, batches(), 10, layers=['1'])
    assert index['1'].shape == (1024,) and len(memory) == 100
    assert max(memory[10:]) - memory[10] < 8e6


def test_refusals() -> None:
    images, labels = coloured([0, 1]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match='Label 1 is out of range: there are 1 classes'):
        class_selectivity(Known(), [(images, labels)], 1)
    with pytest.raises(ValueError, match='Label -1 is out of range: there are 2 classes'):
        class_selectivity(Known(), [(images, labels - 1)], 2)
    with pytest.raises(ValueError, match='Selectivity compares classes, but only 1 of them has images'):
        class_selectivity(Known(), [(images[:1], labels[:1])], 2)
    with pytest.raises(ValueError, match='There are no images to take the means of'):
        class_selectivity(Known(), [], 2)
    with pytest.raises(ValueError, match='only 0 of them has images'):
        class_selectivity(Known(), [(images[:0], labels[:0])], 2)
    with pytest.raises(ValueError, match='num_classes must be a positive integer, but got 0'):
        class_selectivity(Known(), [(images, labels)], 0)
    with pytest.raises(ValueError, match="Known has no layer 'stages'; its layers are stage"):
        class_selectivity(Known(), [], 2, layers=['stages'])
    with pytest.raises(ValueError, match=r"Layer 'fc' has no map of shape \(N, C, H, W\) there"):
        class_selectivity(timm.create_model('cifar_resnet20'), [(torch.randn(2, 3, 28, 28), labels)], 2, layers=['fc'])
