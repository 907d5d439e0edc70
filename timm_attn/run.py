"""Runs one of timm's own scripts, or a console script such as timmx, with the zoo registered.

    python -m timm_attn.run DIR/validate.py --model resnet50_simam --checkpoint FILE --data-dir IMAGENET
    torchrun --nproc-per-node 4 -m timm_attn.run DIR/validate.py ...
    python -m timm_attn.run timmx export onnx resnet50_simam --pretrained --output resnet50_simam.onnx

for validate.py, inference.py, benchmark.py and the like. train.py does not need it: `--device-modules timm_attn` says
the same there.
"""

import runpy
import sys
from importlib.metadata import entry_points
from pathlib import Path

import timm_attn  # noqa: F401


def main() -> None:
    """Becomes `python SCRIPT ARGS...`, as the script sees it, or the console script NAME with ARGS."""
    if len(sys.argv) < 2:
        sys.exit('usage: python -m timm_attn.run SCRIPT ARGS... (a file, or the name of a console script)')
    sys.argv = sys.argv[1:]
    name, script = sys.argv[0], Path(sys.argv[0])
    commands = {command.name: command for command in entry_points(group='console_scripts')}
    if script.is_file():
        sys.path[0] = str(script.resolve().parent)
        runpy.run_path(str(script), run_name='__main__')
    elif name in commands:
        sys.exit(commands[name].load()())
    else:
        sys.exit(
            f'timm_attn.run: there is no script {script}, neither a file nor a console script of an installed package; '
            "timm's are in its git repository, not in its wheel"
        )


if __name__ == '__main__':
    main()
