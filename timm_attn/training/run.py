"""What a training is, as its checkpoints say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm_attn.training.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """All that a resumed training must repeat."""

    model: str
    recipe: Recipe
    head_only: bool
    holdout: float  # training images that are kept for validation, or their share; 0 for none
    class_names: list[str] | None
    images: Mapping[str, Any]  # the fingerprints of both splits

    def saved(self) -> dict[str, Any]:
        """Its entries in a checkpoint and in the metadata of a weight file."""
        options = dict(head_only=self.head_only, holdout=self.holdout, class_names=self.class_names, **self.images)
        return dict(arch=self.model, recipe=vars(self.recipe), options=options)
