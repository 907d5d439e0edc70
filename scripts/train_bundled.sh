#!/usr/bin/env bash
# Trains the bundled nets on Fashion-MNIST, records a result a run, and takes the weights of seed 0 into the package;
# scripts/readme_tables.py then writes the tables. A net and seed take about 40 minutes on a core; what is finished is
# not trained again, what was interrupted goes on.
#
#   apt-get install dataset-fashion-mnist
#   scripts/train_bundled.sh /usr/share/datasets/fashion-mnist runs/bundled '2 cores of an x86-64 CPU' 0 1 2
#
# The last arguments are the seeds (default: 0). JOBS=2 trainings run side by side with one thread each. ARGS goes to
# timm-attn train, as on a GPU: ARGS='--device cuda --set workers=4'.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 FOLDER_OF_THE_IDX_FILES OUTPUT_FOLDER HARDWARE [SEEDS...]" >&2
    exit 2
fi
data=$1 output=$2 hardware=$3
shift 3
seeds=("${@:-0}")
here=$(cd "$(dirname "$0")" && pwd)
models=(cifar_resnet20 cifar_resnet20_{se,cbam,eca,gc,srm,simam,bam})

[ -f "$output/data/validation.tar" ] || python "$here/fashion_mnist_to_tar.py" "$data" "$output/data"

run_of() { echo "$output/$1.seed$2"; }
command_of() {
    echo "OMP_NUM_THREADS=1 timm-attn train --config fashion_mnist --model $1 --seed $2${ARGS:+ $ARGS}" \
        "--data-dir $(printf %q "$output/data") --output $(printf %q "$(run_of "$1" "$2")") --resume"
}

for seed in "${seeds[@]}"; do
    for model in "${models[@]}"; do
        [ -f "$(run_of "$model" "$seed")/last.safetensors" ] || printf 'env %s\0' "$(command_of "$model" "$seed")"
    done
done | xargs -0 -r -P "${JOBS:-2}" -I{} bash -c '{}' # a failure of any ends the script, when all have ended

for seed in "${seeds[@]}"; do
    for model in "${models[@]}"; do
        python "$here/record_result.py" "$model" "$(run_of "$model" "$seed")" "$output/data" \
            "$here/../results/fashion_mnist" --recipe fashion_mnist --dataset Fashion-MNIST \
            --command "$(command_of "$model" "$seed")" --hardware "$hardware"
        [ "$seed" != 0 ] || python "$here/bundle_checkpoint.py" "$model" "$(run_of "$model" 0)/last.safetensors" "$data" \
            --command "$(command_of "$model" 0)" --hardware "$hardware"
    done
done
