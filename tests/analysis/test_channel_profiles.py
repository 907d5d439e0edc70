"""Channel profiles are the mean gates of each class."""

import pytest
import timm
import torch

from tests.support.nets import batches, build
from timm_attn import analysis


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
