#!/usr/bin/env python3
"""Which paper's recipe trained which net: prints the recipe's file and each process's share of its batch.

python scripts/paper_recipe.py MODEL PROCESSES
"""

import fnmatch
import sys

from timm_attn.training.recipe import RECIPES, load_recipe

# The first pattern that matches a model's name.
OF_MODEL = {
    'cifar_*': 'simam_cifar100',
    'mobilenetv2_eca': 'eca_mobilenetv2_in1k',
    'mobilenetv2*': 'simam_mobilenetv2_in1k',
    'wide_resnet*': 'bam_resnet_in1k',
    '*res*_bam*': 'bam_resnet_in1k',
    '*res*_eca': 'eca_resnet_in1k',
    '*resn*': 'simam_resnet_in1k',
}
# How many processes a recipe's batch_size is a share for, where it is not 4 on ImageNet and 1 on small images.
PROCESSES = {'eca_mobilenetv2_in1k': 1}


def recipe_for(model_name: str) -> str:
    """The name of the recipe with which the paper of a model trained it.

    Raises:
        ValueError: no paper's recipe is for that model.
    """
    for pattern, recipe in OF_MODEL.items():
        if fnmatch.fnmatch(model_name, pattern):
            return recipe
    raise ValueError(f'No paper says how it trained {model_name!r}.')


def processes_of(recipe: str) -> int:
    """How many processes a recipe's batch_size is a share for."""
    return PROCESSES.get(recipe, 4 if recipe.endswith('in1k') else 1)


def main(model: str, processes: str) -> None:
    if not processes.isdecimal() or not int(processes):
        sys.exit(f'PROCESSES must be a positive number, but got {processes!r}')
    try:
        name = recipe_for(model)
    except ValueError as error:
        sys.exit(str(error))
    if not name.endswith('in1k'):
        sys.exit(f'{model} is a net for small images: its recipe {name} runs on one process, by timm-attn train')
    total = load_recipe(name).batch_size * processes_of(name)
    if total % int(processes):
        sys.exit(f'the batch of {total} cannot be shared by {processes} processes')
    print(RECIPES / f'{name}.yaml', total // int(processes))


if __name__ == '__main__':
    main(*sys.argv[1:])
