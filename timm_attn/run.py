"""Runs one of timm's own scripts with the zoo registered.

    python -m timm_attn.run DIR/validate.py --model resnet50_simam --checkpoint FILE --data-dir IMAGENET
    torchrun --nproc-per-node 4 -m timm_attn.run DIR/validate.py ...

for validate.py, inference.py, benchmark.py, onnx_export.py and the like. train.py does not need it:
`--device-modules timm_attn` says the same there.
"""

import runpy
import sys
from pathlib import Path

import timm_attn  # noqa: F401


def main() -> None:
    """Becomes `python SCRIPT ARGS...`, as the script sees it."""
    if len(sys.argv) < 2:
        sys.exit('usage: python -m timm_attn.run SCRIPT ARGS...')
    script = Path(sys.argv[1])
    if not script.is_file():
        sys.exit(f"timm_attn.run: there is no script {script}; timm's are in its git repository, not in its wheel")
    sys.argv = sys.argv[1:]
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main()
