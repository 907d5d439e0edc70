"""The launcher of timm's scripts and scripts/train_imagenet.sh, with stand-ins for timm's scripts."""

import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT, start


def test_a_script_runs_with_the_zoo_as_if_alone(tmp_path: Path) -> None:
    (tmp_path / 'neighbour.py').write_text('WORD = "beside"')
    lines = ['import sys, timm, neighbour', 'if __name__ == "__main__":']
    lines += ['    print(sys.argv[1:], neighbour.WORD, timm.is_model("resnet50_simam"), sys.argv[0])']
    (tmp_path / 'script.py').write_text('\n'.join(lines))
    done = start(sys.executable, '-m', 'timm_attn.run', tmp_path / 'script.py', '--model', 'x')
    assert done.stdout == f"['--model', 'x'] beside True {tmp_path / 'script.py'}\n", done.stderr


def test_scripts_get_the_interpreter_of_the_tests() -> None:
    said = start('sh', '-c', 'python -c "import sys; print(sys.executable)"')
    assert said.stdout.strip() == sys.executable, said.stderr


def test_no_script() -> None:
    done = start(sys.executable, '-m', 'timm_attn.run', 'nowhere.py')
    assert done.returncode == 1 and 'there is no script nowhere.py' in done.stderr


@pytest.mark.parametrize(
    ('model', 'processes', 'recipe', 'batch'),
    [('resnet50_simam', 1, 'simam_resnet_in1k', 256), ('mobilenetv2_eca', 2, 'eca_mobilenetv2_in1k', 48)],
)
def test_train_imagenet_picks_the_recipe(model: str, processes: int, recipe: str, batch: int, tmp_path: Path) -> None:
    said = 'import os, pathlib, sys\npathlib.Path(__file__).with_name("said" + os.environ["RANK"])'
    (tmp_path / 'train.py').write_text(f'{said}.write_text(" ".join(sys.argv[1:]))')
    script = ROOT / 'scripts' / 'train_imagenet.sh'
    done = start(script, model, 'IMAGENET', processes, '--amp', TIMM_SCRIPTS=tmp_path)
    line = f'{recipe}.yaml --model {model} --data-dir IMAGENET --batch-size {batch} --amp'
    said = [path.read_text() for path in tmp_path.glob('said*')]
    assert [text.rpartition('recipes/')[2] for text in said] == [line] * processes, done.stderr  # installed or not


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['resnet50_simam'], 'usage'),
        (['resnet50_simam', 'DATA', 3], 'the batch of 256 cannot be shared by 3 processes'),
        (['squeezenet1_1_bam', 'DATA'], "No paper says how it trained 'squeezenet1_1_bam'.\n"),
        (['resnet50_simam', 'DATA', 0], "PROCESSES must be a positive number, but got '0'"),
        (['resnet50_simam', 'DATA', '--epochs', 1], "PROCESSES must be a positive number, but got '--epochs'"),
        (['cifar_resnet20_se', 'DATA'], 'is a net for small images'),
    ],
)
def test_train_imagenet_refuses(arguments: list[object], message: str, tmp_path: Path) -> None:
    (tmp_path / 'train.py').write_text('raise SystemExit("must not be reached")')
    done = start(ROOT / 'scripts' / 'train_imagenet.sh', *arguments, TIMM_SCRIPTS=tmp_path)
    assert done.returncode and message in done.stderr
    assert 'must not be reached' not in done.stderr and 'Traceback' not in done.stderr


def test_train_imagenet_needs_train_py(tmp_path: Path) -> None:
    done = start(ROOT / 'scripts' / 'train_imagenet.sh', 'resnet50_simam', 'DATA', TIMM_SCRIPTS=tmp_path)
    assert done.returncode == 1 and "TIMM_SCRIPTS must name the folder of timm's train.py" in done.stderr
