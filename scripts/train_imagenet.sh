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
read -r recipe batch < <(python "$(dirname "$0")/paper_recipe.py" "$model" "$processes") || exit 1
# shellcheck disable=SC2086
exec torchrun ${TORCHRUN:---standalone --nproc-per-node $processes} "$TIMM_SCRIPTS/train.py" --config "$recipe" \
    --model "$model" --data-dir "$data" --batch-size "$batch" "$@"
