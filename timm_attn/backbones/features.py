"""features_only for nets whose stages are no plain sequence of modules."""

from typing import Any

from timm.models._features import FeatureGetterNet


class GetterFeatures(FeatureGetterNet):
    """timm's features through forward_intermediates, which can also be trained with gradient checkpointing."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        model: Any = self.model
        model.set_grad_checkpointing(enable)
