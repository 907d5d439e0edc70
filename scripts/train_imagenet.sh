#!/usr/bin/env bash
# Trains a model on ImageNet by the recipe of its paper, under timm's own train.py and torchrun.
#
#   TIMM_SCRIPTS=DIR scripts/train_imagenet.sh MODEL DATA_DIR [PROCESSES] [ARGS OF train.py...]
#
# TIMM_SCRIPTS is the folder of timm's train.py, which its wheel lacks:
#   git clone https://github.com/huggingface/pytorch-image-models
# The batch stays the paper's: the recipe's share of 4 processes is divided anew among PROCESSES (default 4).
# Several nodes: the same command on each, with its torchrun options in TORCHRUN, PROCESSES being those of all nodes:
#   TORCHRUN='--nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500' \
#       scripts/train_imagenet.sh resnet50_simam IMAGENET 8
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: TIMM_SCRIPTS=DIR $0 MODEL DATA_DIR [PROCESSES] [ARGS OF train.py...]" >&2
    exit 2
fi
model=$1 data=$2 processes=${3:-4}
shift $(($# < 3 ? 2 : 3))
if [ ! -f "${TIMM_SCRIPTS:-}/train.py" ]; then
    echo "$0: TIMM_SCRIPTS must name the folder of timm's train.py (see the head of this file)" >&2
    exit 1
fi
read -r recipe batch < <(python - "$model" "$processes" <<'END'
import sys

from timm_attn.training.recipe import RECIPES, load_recipe, processes_of, recipe_for

model, processes = sys.argv[1:]
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
END
) || exit 1
# shellcheck disable=SC2086
exec torchrun ${TORCHRUN:---standalone --nproc-per-node $processes} "$TIMM_SCRIPTS/train.py" --config "$recipe" \
    --model "$model" --data-dir "$data" --batch-size "$batch" "$@"
