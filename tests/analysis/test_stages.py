"""The maps of the stages."""

import pytest
import timm
import torch
from torch import nn

from timm_attn import analysis


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
