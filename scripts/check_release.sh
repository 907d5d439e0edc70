#!/usr/bin/env bash
# Builds the wheel and the sdist, checks what they say and hold, and runs the demo from each in a fresh environment.
# It needs the packages build and twine, and for the environment the network or pip's cache.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python -m build --outdir "$work/dist" "$root"
python -m twine check --strict "$work"/dist/*
python "$root/scripts/dist_contents.py" "$work"/dist/*
python -m venv "$work/venv"
cd "$work" # away from the source
venv/bin/pip install --quiet dist/*.whl
venv/bin/timm-attn demo
venv/bin/pip install --quiet --force-reinstall --no-deps dist/*.tar.gz
venv/bin/timm-attn --version
venv/bin/timm-attn predict cifar_resnet20_simam "$root/docs/samples/ankle-boot_0.png"
