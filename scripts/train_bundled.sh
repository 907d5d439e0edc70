#!/usr/bin/env bash
# Trains the bundled nets on Fashion-MNIST and takes their last epochs into the package: about 40 minutes on two cores.
#
#   apt-get install dataset-fashion-mnist
#   scripts/train_bundled.sh /usr/share/datasets/fashion-mnist runs/bundled '2 cores of an x86-64 CPU'
set -euo pipefail
if [ $# -ne 3 ]; then
    echo "usage: $0 FOLDER_OF_THE_IDX_FILES OUTPUT_FOLDER HARDWARE" >&2
    exit 2
fi
data=$1 output=$2 hardware=$3
here=$(cd "$(dirname "$0")" && pwd)
models=(cifar_resnet20 cifar_resnet20_simam)

[ -f "$output/data/validation.tar" ] || python "$here/fashion_mnist_to_tar.py" "$data" "$output/data"

command_of() { # what trains a model; one thread each, side by side, uses two cores best
    echo "OMP_NUM_THREADS=1 timm-attn train --config fashion_mnist --model $1 --data-dir $output/data --output $output/$1"
}

jobs=()
for model in "${models[@]}"; do
    env bash -c "$(command_of "$model")" &
    jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done # a failure of either ends the script

for model in "${models[@]}"; do
    python "$here/bundle_checkpoint.py" "$model" "$output/$model/last.safetensors" "$data" \
        --command "$(command_of "$model")" --hardware "$hardware"
done
