"""The console command: what it prints, and one line with a non-zero exit for what it cannot do."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import ROOT, fail_cli, run_cli
from timm_attn import demo, zoo
from timm_attn.cli import main
from timm_attn.data.fashion_mnist import FashionMNIST

NAME = 'cifar_resnet20_simam'


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run_cli(capsys, 'list').splitlines()
    assert [line.split()[0] for line in lines] == zoo.names()
    assert f'{NAME}  [fmnist loads now, start from_fmnist]' in lines
    assert 'resnet18_simam  [authors_in1k fetched unverified, start from_a1_in1k]' in lines
    assert 'resnet18_se  [osmr_in1k fetched on first use, start from_a1_in1k]' in lines
    assert 'resnet50_bam  [start from_a1_in1k]' in run_cli(capsys, 'list', '*_bam').splitlines()
    assert 'cifar_resnet110_bam' in run_cli(capsys, 'list', '*_bam').splitlines()
    assert "No model matches 'x*'" in fail_cli(capsys, 'list', 'x*')


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    text = run_cli(capsys, 'info', NAME)
    assert 'parameters: 272,474' in text and '9 x SimAM' in text and f'checkpoint {NAME}.fmnist' in text
    assert 'SimAM(e_lambda=0.0001)' in text and f'weights of the plain net: {NAME}.from_fmnist' in text
    assert 'Invalid pretrained tag (zzz)' in fail_cli(capsys, 'info', f'{NAME}.zzz')
    *_, checkpoint, _, bundled = run_cli(capsys, 'info', f'{NAME}.fmnist').splitlines()
    assert checkpoint.startswith(f'checkpoint {NAME}.fmnist') and '1,000 images' in bundled
    *_, layer, start = run_cli(capsys, 'info', f'{NAME}.from_osmr_cifar100').splitlines()
    assert 'SimAM(' in layer and start.endswith(f': {NAME}.from_osmr_cifar100')
    assert 'parameters: 25,917,793' in run_cli(capsys, 'info', 'resnet50_bam')
    assert 'did you mean resnet50_simam' in fail_cli(capsys, 'info', 'resnet50_siman')


def test_places(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run_cli(capsys, 'places', 'regnety_002').splitlines()
    start = next(i for i, line in enumerate(lines) if "at='stages'" in line)
    assert lines[start + 1 :] == [
        '  s1.b1  wrapped, 24 channels',
        '  s2.b1  wrapped, 56 channels',
        '  s3.b4  wrapped, 152 channels',
        '  s4.b7  wrapped, 368 channels',
        '  stem  skipped: no block in it',
    ]
    assert 'replace=True' in lines[1] and lines[2] == '  s1.b1.se  replaced, 24 channels'
    assert 'gives tokens' in run_cli(capsys, 'places', 'test_vit')
    assert 'or regnety_002 or' in fail_cli(capsys, 'places', 'regnety_02')


def test_predict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    test = FashionMNIST('validation')
    trouser = tmp_path / 'trouser.png'
    test.image(int((test.labels == 1).argmax())).save(trouser)
    assert run_cli(capsys, 'predict', NAME, trouser).startswith(f'{trouser}: trouser ')


def test_predict_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good, bad = tmp_path / 'good.png', tmp_path / 'bad.png'
    Image.new('RGB', (28, 28)).save(good)
    bad.write_text('not an image')
    assert f'{bad} cannot be read as an image' in fail_cli(capsys, 'predict', NAME, good, bad)
    good.write_bytes(good.read_bytes()[:60])
    assert f'{good} cannot be read as an image' in fail_cli(capsys, 'predict', NAME, good)
    Image.new('RGB', (28, 28)).save(good)
    assert f'no image {tmp_path / "gone.png"}' in fail_cli(capsys, 'predict', NAME, tmp_path / 'gone.png')
    assert 'No pretrained weights exist for resnet50_srm' in fail_cli(capsys, 'predict', 'resnet50_srm', good)
    assert 'Invalid pretrained tag (a1)' in fail_cli(capsys, 'predict', f'{NAME}.a1', good)
    assert "Unknown model 'resnet5'" in fail_cli(capsys, 'predict', 'resnet5', good)


def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, 'FINE_TUNING', replace(demo.FINE_TUNING, epochs=1))
    text = run_cli(capsys, 'demo', '--output', tmp_path / 'demo.png')
    measured, claimed = (float(part.split()[0]) for part in text.split('top-1')[1].split('manifest:'))
    assert abs(measured - claimed) <= 0.2
    plain, start, fresh, tuned = (float(part.split()[0]) for part in text.split('top-1')[2:6])
    assert plain > 90 and abs(plain - start) <= 0.2 and fresh < 40 and tuned > 80
    picture = Image.open(tmp_path / 'demo.png')
    assert picture.width > 1000 and len(picture.getcolors(1 << 20) or []) > 100


def test_demo_refuses_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert 'nowhere' in fail_cli(capsys, 'demo', '--picture', tmp_path / 'nowhere' / 'demo.png')
    assert not list(tmp_path.iterdir())


def test_paper(capsys: pytest.CaptureFixture[str]) -> None:
    text = run_cli(capsys, 'paper', 'ECA A')
    assert '| ECA-Net, R-18 | params | 11.148M | `resnet18_eca` 11,689,548 | ✓ |' in text
    assert text.rstrip().endswith('0 crossed')
    assert "Unknown table 'BAM 99'" in fail_cli(capsys, 'paper', 'BAM 99')


def test_training_commands_refuse_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = ['--model', NAME, '--data-dir', tmp_path / 'gone', '--output', tmp_path / 'out']
    assert "no recipe 'x'" in fail_cli(capsys, 'train', '--config', 'x', *common)
    assert 'no folder' in fail_cli(capsys, 'train', '--config', 'finetune', '--device', 'cpu', *common)
    assert '--set takes KEY=VALUE' in fail_cli(capsys, 'train', '--config', 'finetune', '--set', 'epochs', *common)
    assert "epochs: 'x'" in fail_cli(capsys, 'train', '--config', 'finetune', '--set', 'epochs=x', *common)
    assert 'no folder' in fail_cli(capsys, 'validate', '--device', 'cpu', *common[:4])
    assert 'There is no' in fail_cli(capsys, 'curves', tmp_path, '--output', tmp_path / 'c.png')
    values = ['--attn-kwarg', 'e_lambda', '--values', '1', '1']
    assert 'different values' in fail_cli(capsys, 'sweep', '--config', 'finetune', *common, *values)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('timm_attn.catalog.listing', interrupted)
    assert main(['list']) == 130 and capsys.readouterr().err == 'timm-attn: interrupted.\n'


INTERRUPTED = """
import atexit, os, signal, sys
import timm_attn_command

def interrupt(event, args):
    if event == 'import' and args[0] == moment:
        os.kill(os.getpid(), signal.SIGINT)

moment = sys.argv.pop(1)
sys.addaudithook(interrupt)
if moment == 'exit':
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.exit(timm_attn_command.main())
"""


@pytest.mark.parametrize(
    'moment', ['torch', 'numpy', 'timm', 'timm_attn.zoo', 'timm_attn.cli.weights', 'timm_attn.catalog', 'exit']
)
def test_ctrl_c_at_any_moment_is_one_line(moment: str) -> None:
    """In the imports of the package and of a command, while the command runs, and when it has run."""
    code = f'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{INTERRUPTED}'  # under nohup, too
    command = [sys.executable, '-c', code, moment, 'list', 'cifar_resnet20_*']
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, 'timm-attn: interrupted.\n')
    assert bool(run.stdout) == (moment == 'exit')


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As under nohup, or in the background of a script."""
    code = f'import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{INTERRUPTED}'
    run = subprocess.run([sys.executable, '-c', code, 'timm_attn.zoo', 'list'], capture_output=True, text=True)
    assert run.returncode == 0 and 'cifar_resnet20_bam' in run.stdout.split() and not run.stderr


def test_the_console_command_is_the_module_outside_of_the_package() -> None:
    """Installed as pyproject.toml says, and by `python -m timm_attn.cli`."""
    project = (ROOT / 'pyproject.toml').read_text()
    assert 'timm-attn = "timm_attn_command:main"' in project
    assert 'only-include = ["timm_attn", "timm_attn_command.py"]' in project
    command = [sys.executable, '-m', 'timm_attn.cli', 'info', NAME]
    assert 'parameters: 272,474' in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_git_ignores_what_commands_leave_in_the_clone(tmp_path: Path) -> None:
    numbers = [f'{NAME}_{report}.{kind}' for report in ('cost', 'profile', 'selectivity') for kind in ('csv', 'json')]
    figures = [f'coat_17_{NAME}.svg', f'{NAME}_cost.png', 'timm_attn_demo.png', 'benchmark.png', 'curves.png']
    files = [*numbers, *figures, 'benchmark.json', 'suite0.log', 'runs/images/validation.tar']
    shutil.copy(ROOT / '.gitignore', tmp_path)
    subprocess.run(['git', 'init', '-q'], cwd=tmp_path, check=True)
    command = ['git', 'check-ignore', *files, 'docs/gallery/cost.png', 'weights_manifest.json', 'results/x.csv']
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert found.split() == files
