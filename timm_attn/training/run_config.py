"""What a training is, as its checkpoints say it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from timm.data import resolve_data_config

from timm_attn.training.recipe import Recipe, usable
from timm_attn.weights.manifest import checkpoints_of

_BUILD = ('in_chans', 'num_classes', 'drop_rate')  # model arguments that other keys of a recipe say
_INPUT = ('input_size', 'mean', 'std', 'interpolation', 'crop_pct')


@dataclass(frozen=True)
class Run:
    """All that a resumed training must repeat."""

    model: str
    recipe: Recipe
    head_only: bool
    holdout: float  # training images that are kept for validation, or their share; 0 for none
    class_names: list[str] | None
    images: Mapping[str, Any]  # the fingerprints of both splits

    def of(self, model: Any) -> 'Run':
        """The run with the options, and for hf-hub: or local-dir: the name and input, that its built model has.

        They come from the weights that it starts with, and no tensor of a checkpoint shows them.
        """
        cfg, recipe, name = model.pretrained_cfg, self.recipe, self.model
        if ':' in name:  # a place, where other weights may lie later
            name = f'{cfg["architecture"]}.{cfg["tag"]}' if cfg.get('tag') else cfg['architecture']
            recorded = model.pretrained_model_args
            with usable():
                config = resolve_data_config(vars(recipe), model=model)
            plain: dict[str, Any] = {key: list(v) if isinstance(v := config[key], tuple) else v for key in _INPUT}
            recipe = replace(recipe, **plain)
        else:
            tagged = (c.model_args for c in checkpoints_of(name.partition('.')[0]) if c.tag == cfg.get('tag'))
            recorded = next(tagged, {})
        options = {k: v for k, v in {**model._model_args, **recipe.model_kwargs}.items() if k not in _BUILD}
        if recipe.pretrained and recorded.get('attn_kwargs'):  # the user's are added to them
            options['attn_kwargs'] = {**recorded['attn_kwargs'], **(options.get('attn_kwargs') or {})}
        return replace(self, model=name, recipe=replace(recipe, model_kwargs=options))

    def saved(self) -> dict[str, Any]:
        """Its entries in a checkpoint and in the metadata of a weight file."""
        options = dict(head_only=self.head_only, holdout=self.holdout, class_names=self.class_names, **self.images)
        return dict(arch=self.model, recipe=vars(self.recipe), options=options)
